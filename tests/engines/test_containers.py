"""What a daemon's list says of a container."""

from __future__ import annotations

import pytest

from pydantic_ai_sandbox.engines.docker.containers import listed_name


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["/sandbox-1"], "sandbox-1"),
        (["/other/alias", "/sandbox-1"], "sandbox-1"),
        # While it is being removed.
        ([], "0123abcd"),
        (None, "0123abcd"),
    ],
)
def test_a_container_is_called_by_its_own_name_or_its_id(names: list[str] | None, name: str) -> None:
    assert listed_name({"Id": "0123abcd", "Names": names}) == name
