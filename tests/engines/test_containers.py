"""What a daemon's list says of a container."""

from __future__ import annotations

import pytest

from pydantic_ai_sandbox.engines.docker.containers import listed_name


@pytest.mark.parametrize("names", [["/sandbox-1"], ["/other/alias", "/sandbox-1"]])
def test_a_container_is_called_by_its_own_name(names: list[str]) -> None:
    assert listed_name({"Id": "0123abcd", "Names": names}) == "sandbox-1"
