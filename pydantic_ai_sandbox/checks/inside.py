"""All checks that can be made from inside one sandbox."""

from __future__ import annotations

from collections.abc import Sequence

from ..sandbox import Sandbox
from .facts import NoFactsError, find_out
from .limits import limits_as_set, limits_by_exhaustion, unknown_limits
from .results import Check, SelfCheck
from .runner import check_runner, check_transport
from .walls import judged, unjudged

__all__ = ("self_check",)


async def self_check(sandbox: Sandbox, *, exhaust: bool = False, addresses: Sequence[str] = ()) -> SelfCheck:
    """Try every wall of a sandbox from inside it.

    What is judged is what happens, not what was configured: forbidden system calls are made, the root file system is written to,
    ways to the network are looked for (no packet is sent). What the sandbox gives up on purpose (`allow_root`, `extra_caps`,
    `network="bridge"`, `persistent`) is a warning. It takes a Python in the image; without one only the runner is checked.

    Code that runs in the sandbox already, as the same user, could disturb the checks and forge what they say: a sandbox that
    nobody used yet tells the truth.

    Args:
        sandbox: Which; it is started if it is not.
        exhaust: Also run into the limits of memory, processes and processor time, which disturbs what else runs there.
        addresses: Further IP addresses to which there must be no way, such as the host's own.

    Raises:
        WorkspaceUnavailableError: The sandbox is gone.
        SandboxError: It cannot be made or reached.
    """
    await sandbox.start()
    assert sandbox.info is not None
    spec = sandbox.info.spec
    runner = (await check_runner(sandbox), check_transport(sandbox))
    try:
        facts = await find_out(sandbox, addresses)
    except NoFactsError as error:
        limits = unknown_limits(str(error)) if exhaust else await limits_as_set(sandbox, spec)
        return SelfCheck(checks=(*runner, *unjudged(str(error)), *limits))
    if exhaust:
        limits = await limits_by_exhaustion(sandbox, spec, facts.processors)
    else:
        limits = await limits_as_set(sandbox, spec)
    checks: tuple[Check, ...] = (*runner, *judged(facts, spec), *limits)
    return SelfCheck(checks=checks)
