"""The first process in a container: killed, frozen, starved, read, rewritten, impersonated in its log."""

from __future__ import annotations

import errno
import re
from functools import partial

from tests.attacks.lab import Lab
from tests.attacks.registry import DEFAULT, Family

family = Family("runner")

AGENT = "import signal, time\nwhile True: time.sleep(1)"
"""What people write to have something in a container that does what they ask for."""

EVERY_SIGNAL = "for number in range(1, 65):\n    os.kill(1, number)"
OUT_OF_REACH = {errno.EACCES}
REFUSED = {errno.EPERM}


def _first_process(lab: Lab, body: str) -> bool:
    """Whether an agent that is a container's first process is gone after that."""
    plain = lab.another_plain(["python3", "-c", AGENT])
    plain.exec(["python3", "-c", f"import os\n{body}"])
    return not plain.runs()


async def _every_signal_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    await sandbox.run(["python3", "-c", f"import os\n{EVERY_SIGNAL}"], timeout=10)
    return (await sandbox.run(["echo", "alive"], timeout=10)).stdout != "alive\n"


family.pair(
    "sends every signal to PID 1",
    against="an agent as PID 1",
    naive=lambda lab: _first_process(lab, EVERY_SIGNAL),
    ours=_every_signal_ours,
    quick=True,
)


def _everybody_naive(signal: str, lab: Lab) -> bool:
    plain = lab.another_plain()
    plain.start(["python3", "-c", AGENT])
    plain.sh(f"kill -{signal} -1")
    states = plain.sh("cat /proc/[0-9]*/stat")
    return re.search(r"\(python3\) [^TZ]", states) is None


async def _everybody_ours(signal: str, lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    await sandbox.run(f"kill -{signal} -1", shell=True, timeout=10)
    return (await sandbox.run(["echo", "alive"], timeout=10)).stdout != "alive\n"


for _signal, _verb in (("KILL", "kills"), ("STOP", "stops")):
    family.pair(
        f"{_verb} everything it may",
        against="an agent started by `docker exec`",
        naive=partial(_everybody_naive, _signal),
        ours=partial(_everybody_ours, _signal),
    )

# --- what belongs to it

family.probe("traces PID 1", "checked(libc.ptrace(16, 1, 0, 0))", REFUSED, quick=True)
family.probe("reads PID 1's memory", "open('/proc/1/mem', 'rb')", OUT_OF_REACH, quick=True)
family.probe("reads PID 1's environment", "open('/proc/1/environ', 'rb').read()", OUT_OF_REACH)
family.probe("reaches PID 1's files", "os.stat('/proc/1/cwd/f'); os.stat('/proc/1/root/etc')", OUT_OF_REACH)
family.probe("takes limits from PID 1", "resource.prlimit(1, resource.RLIMIT_NOFILE, (9, 9))", REFUSED)
family.probe(
    "has PID 1 killed first when memory runs out", "open('/proc/1/oom_score_adj', 'w').write('1000')", OUT_OF_REACH
)
family.probe(
    "takes a descriptor out of PID 1", "p = call(434, 434, 1, 0); call(438, 438, p, 0, 0)", REFUSED, unconfined=True
)
family.probe(
    "lets PID 1 run only when nothing else wants to",
    "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
    REFUSED,
)
family.probe("gives PID 1 the lowest priority", "os.setpriority(os.PRIO_PROCESS, 1, 19)", REFUSED)
family.probe(
    "gives everything of its user the lowest priority",
    "os.setpriority(os.PRIO_USER, 0, 19)\nif os.getpriority(os.PRIO_PROCESS, 1) != 19: raise OSError(1, 'spared')",
    REFUSED,
)
family.probe("pins PID 1 to a processor that it keeps busy", "os.sched_setaffinity(1, {0})", REFUSED)
family.probe("has PID 1's disk access wait for all other", "call(251, 30, 1, 1, 3 << 13)", REFUSED)


def _overwritten(lab: Lab) -> bool:
    plain = lab.another_plain()
    plain.sh("echo 'print(1)' > /agent.py")
    return plain.attempt("open('/agent.py', 'w').write('print(2)')").error is None


async def _runner_overwritten(lab: Lab) -> bool:
    way = "/.sandbox/bin/runner"
    for body in (
        f"open('{way}', 'wb')",
        f"os.unlink('{way}')",
        f"os.rename('{way}', '/tmp/r')",
        "os.rename('/.sandbox/bin', '/.sandbox/old')",
        "open('/proc/1/exe', 'wb')",
    ):
        tried = await lab.attempt(body)
        assert tried.error in {errno.EROFS, errno.EACCES, errno.EXDEV, errno.EBUSY, errno.ETXTBSY}, tried
    return False


family.pair("overwrites the agent's program", against=DEFAULT, naive=_overwritten, ours=_runner_overwritten)


def _log_naive(lab: Lab) -> bool:
    lab.plain.attempt("open('/proc/1/fd/1', 'w').write('all is well\\n')")
    return b"all is well" in lab.plain.container.logs()


async def _log_ours(lab: Lab) -> bool:
    for number in (1, 2):
        assert (await lab.attempt(f"open('/proc/1/fd/{number}', 'w').write('all is well\\n')")).error == errno.EACCES
    return "all is well" in await lab.sandbox.logs()


family.pair("forges lines in the container's log", against=DEFAULT, naive=_log_naive, ours=_log_ours)
