"""Using up what there is. The naive side has limits of its own here, wider than what the attack proves: the host must live."""

from __future__ import annotations

import errno
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pydantic_ai_sandbox import ResourceExhaustedError, ResourceLimits
from tests.attacks.lab import Lab
from tests.attacks.registry import DEFAULT, Family

family = Family("exhaustion")

MIB = 1024 * 1024

# --- memory and processes

HOG = f"x = [bytearray(os.urandom(8)) * {MIB} for _ in range(24)]"
"""192 MiB, all of it written to."""


async def _hog_ours(lab: Lab) -> bool:
    limits = ResourceLimits.model_validate({"memory": "96MiB", "workspace": "8MiB", "tmp": "8MiB", "home": "8MiB"})
    sandbox = await lab.another_sandbox(limits=limits)
    result = await sandbox.run(["python3", "-c", f"import os; {HOG}"], timeout=30)
    assert (await sandbox.run(["echo", "alive"])).stdout == "alive\n"
    assert result.exit_code == 0 or result.cause == "out_of_memory"
    return result.exit_code == 0


family.pair(
    "takes all memory",
    against=DEFAULT,
    naive=lambda lab: lab.another_plain(mem_limit="400m").attempt(HOG).error is None,
    ours=_hog_ours,
    quick=True,
)

SPAWN = "for _ in range(300):\n    subprocess.Popen(['sleep', '30'])"
THREADS = (
    "import threading\ntry:\n    for _ in range(300):\n"
    "        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
    "except RuntimeError: raise OSError(11, 'no more') from None"
)


async def _many_ours(body: str, lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    tried = await lab.attempt(body, sandbox=sandbox)
    await sandbox.kill_all()
    assert (await sandbox.run(["echo", "alive"], timeout=10)).stdout == "alive\n"
    assert tried.error in {errno.EAGAIN, None}
    return tried.error is None


for _name, _body in (("processes", SPAWN), ("threads", THREADS)):
    family.pair(
        f"starts {_name} without end",
        against=DEFAULT,
        naive=lambda lab, body=_body: lab.another_plain(pids_limit=400).attempt(body).error is None,
        ours=partial(_many_ours, _body),
    )

BOMB = ["python3", "-c", "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)"]
"""One of a kind that does not die of what it does, as shells do that cannot fork."""


def _bomb_naive(lab: Lab) -> bool:
    plain = lab.another_plain(pids_limit=300)
    plain.start(BOMB)
    # Nobody ends it, and soon nothing else gets a process.
    return any(_refused(plain.id) for _ in range(40))


def _refused(id: str) -> bool:
    done = subprocess.run(
        ["docker", "exec", id, "sh", "-c", "true & true & wait"], capture_output=True, text=True, check=False
    )
    return done.returncode != 0


async def _bomb_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(limits=ResourceLimits(pids=128))
    await sandbox.execute(BOMB, timeout=1)
    return (await sandbox.run("true & true & wait", shell=True, timeout=10)).exit_code != 0


family.pair("explodes into processes that start processes", against=DEFAULT, naive=_bomb_naive, ours=_bomb_ours)


def _jobs_naive(lab: Lab) -> bool:
    plain = lab.another_plain()
    # Longer than a busy machine takes to start all of them.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(plain.start, [["sleep", "600"]] * 65))
    return plain.shows(lambda processes: processes.count("sleep 600") == 65)


async def _jobs_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    with pytest.raises(ResourceExhaustedError):
        for _ in range(70):
            await sandbox.start_job(["sleep", "600"])
    return len(await sandbox.jobs()) > 64


family.pair(
    "starts background commands without end", against="`docker exec --detach`", naive=_jobs_naive, ours=_jobs_ours
)

# --- disk

SIZE = 24 * MIB
FILL = f"with open('/workspace/fill', 'wb') as f:\n    for _ in range(16): f.write(bytes({MIB})); f.flush()"
MANY = "for number in range(5000): open(f'/workspace/{number}', 'x').close()"


def _disk(lab: Lab, options: str) -> Path:
    """A small disk of the host's that several share, in memory."""
    disk = lab.folder("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},{options}", "attacked", disk], check=True)
    lab.later(lambda: subprocess.run(["umount", "-l", disk], check=True))
    (disk / "alice").mkdir()
    return disk


def _fill_naive(body: str, options: str, lab: Lab) -> bool:
    disk = _disk(lab, options)
    plain = lab.another_plain(volumes=[f"{disk}/alice:/workspace"])
    return plain.attempt(body).error is None


async def _fill_ours(body: str, lab: Lab) -> bool:
    manager = lab.manager(disk_quota="8MiB")
    sandbox = await manager.get_or_create("alice")
    result = await lab.attempt(body, sandbox=sandbox)
    assert result.error in {errno.ENOSPC, errno.EDQUOT, None}
    assert await manager.upload("bob", "f", b"of a neighbour") == 14
    return result.error is None


for _name, _body, _options in (("fills the disk", FILL, "nr_inodes=0"), ("takes every inode", MANY, "nr_inodes=9000")):
    family.pair(
        f"{_name} that others need",
        against="`docker run -v`",
        naive=partial(_fill_naive, _body, _options),
        ours=partial(_fill_ours, _body),
    )


async def _tmp_ours(body: str, lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(limits=ResourceLimits.model_validate({"tmp": "16MiB", "workspace": "16MiB"}))
    tried = await lab.attempt(body, sandbox=sandbox)
    assert tried.error in {errno.ENOSPC, None}
    return tried.error is None


for _name, _body in (
    ("fills the disk beneath /tmp", f"open('/tmp/fill', 'wb').write(bytes({SIZE}))"),
    ("makes files in /tmp without end", "for number in range(5000): open(f'/tmp/{number}', 'x').close()"),
):
    family.pair(
        _name,
        against=DEFAULT,
        naive=lambda lab, body=_body: lab.another_plain().attempt(body).error is None,
        ours=partial(_tmp_ours, _body),
    )

family.probe(
    "makes a file of a terabyte",
    "path = '/var/tmp/huge' if os.getuid() == 0 else '/tmp/huge'\n"
    "os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40)",
    {errno.EFBIG},
)
family.probe(
    "opens files without end",
    "resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)\n"
    "for _ in range(9000): os.open('/dev/null', os.O_RDONLY)",
    {errno.EMFILE},
)
family.probe(
    "has its memory written to the host's disk when it crashes",
    "try: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))\n"
    "except ValueError: raise OSError(1, 'no cores') from None",
    {errno.EPERM},
)

# --- the log

LINES = "out = open('/proc/1/fd/1', 'wb')\nfor _ in range(256): out.write(b'x' * 65535 + b'\\n')"


def _logged(lab: Lab, id: str) -> int:
    folder = Path(lab.plains.client.info()["DockerRootDir"], "containers", id)
    return sum(path.stat().st_size for path in folder.rglob("*.log*"))


def _log_naive(lab: Lab) -> bool:
    plain = lab.another_plain()
    plain.attempt(LINES)
    return _logged(lab, plain.id) > 8 * MIB


async def _log_ours(lab: Lab) -> bool:
    assert lab.sandbox.ref is not None
    assert (await lab.attempt(LINES)).error == errno.EACCES
    found = lab.plains.client.api.inspect_container(lab.sandbox.ref.id)
    assert found["HostConfig"]["LogConfig"]["Config"] == {"max-size": "1m", "max-file": "2"}
    return _logged(lab, lab.sandbox.ref.id) > 2 * MIB


family.pair("fills the disk through the container's log", against=DEFAULT, naive=_log_naive, ours=_log_ours)
