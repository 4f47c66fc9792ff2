"""The least that may be asked for is enough for a sandbox that works."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from annotated_types import Ge

from pydantic_ai_sandbox import DockerSandbox, ResourceLimits

pytestmark = pytest.mark.docker

LEAST = {
    name: next(bound.ge for bound in field.metadata if isinstance(bound, Ge))
    for name, field in ResourceLimits.model_fields.items()
}


@pytest.mark.parametrize("name", [*LEAST, "all"])
async def test_the_least_of_each_limit_and_of_all_is_enough(
    make_sandbox: Callable[..., DockerSandbox], name: str
) -> None:
    least = LEAST if name == "all" else {"output": LEAST["output"], name: LEAST[name]}
    async with make_sandbox(limits=ResourceLimits.model_validate(least)) as sandbox:
        for _ in range(3):
            result = await sandbox.run("seq 100 > numbers; wc -l < numbers | cat", shell=True, timeout=120)
            assert (result.exit_code, result.stdout) == (0, "100\n")
        await sandbox.write_text("/tmp/note", "kept")
        assert await sandbox.read_bytes("/tmp/note") == b"kept"
