"""`make chaos`: random operations and random faults for as long as you like."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from .running import obstacle, run
from .supervisor import Plan


def main() -> int:
    """Run it and say what was seen; the exit status says whether everything was as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of everything that is random")
    parser.add_argument("--pace", type=float, default=4.0, help="seconds between two faults, on average")
    parser.add_argument("--quota", help="what every user may have, such as 32MiB; none unless given")
    parser.add_argument("--keep", type=Path, help="directory for journal and logs, if something is wrong")
    options = parser.parse_args()
    if (reason := obstacle()) is not None:
        print(f"cannot run: {reason}")
        return 2
    print(f"seed {options.seed}", flush=True)
    plan = Plan(seconds=options.seconds, seed=options.seed, pace=options.pace, quota=options.quota)
    report = run(plan, options.keep)
    for name in ("deeds", "outcomes", "errors"):
        print(f"{name}: {dict(getattr(report, name).most_common())}")
    print("slowest:", {deed: round(seconds, 1) for deed, seconds in sorted(report.slowest.items())})
    for name, figure in report.figures.items():
        print(f"{name}: {figure}")
    print(f"seed {options.seed}: {len(report.complaints)} complaints")
    return 1 if report.complaints else 0


sys.exit(main())
