"""The attacks and how they ended, as a table in SECURITY.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ("PAGE", "listed", "write")

PAGE = Path(__file__).parents[2] / "SECURITY.md"

BEGIN = "<!-- attacks: written by `make attack-table` -->"
END = "<!-- end of attacks -->"

_HEAD = ("family", "whoever attacks …", "naive configuration", "there", "here")


def write(outcomes: Mapping[str, tuple[bool, bool]]) -> list[str]:
    """Put the outcomes of a run into the page; returns the attacks that have none, for which it is left as it is."""
    from tests.attacks.families import ATTACKS

    if missing := [attack.id for attack in ATTACKS if attack.id not in outcomes]:
        return missing
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for attack in ATTACKS:
        there, here = (("fails", "succeeds")[won] for won in outcomes[attack.id])
        rows.append((attack.family, attack.name, attack.against, there, here))
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return []


def listed() -> list[tuple[str, ...]]:
    """The table's rows."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    lines = [line for line in rest.partition(END)[0].splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]
