"""The defaults, each as Docker reports it and as the code inside finds it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox import DockerEngine, DockerSandbox
from tests.docker.conftest import IDLE

pytestmark = pytest.mark.docker

MiB = 1024 * 1024


@dataclass(frozen=True)
class Subject:
    """A sandbox with nothing but defaults, and what Docker says of it."""

    sandbox: DockerSandbox
    found: dict[str, Any]

    @property
    def host(self) -> dict[str, Any]:
        return self.found["HostConfig"]

    async def sh(self, script: str) -> str:
        result = await self.sandbox.run(script, shell=True, timeout=60)
        return (result.stdout + result.stderr).strip()

    async def python(self, script: str) -> str:
        result = await self.sandbox.run(["python3", "-c", script], timeout=60)
        return (result.stdout + result.stderr).strip()


@pytest.fixture
async def subject(engine: DockerEngine, docker_api: Any) -> AsyncGenerator[Subject]:
    async with DockerSandbox(engine=engine, idle_timeout=IDLE) as sandbox:
        await sandbox.run(["true"])
        assert sandbox.ref is not None
        yield Subject(sandbox, docker_api.inspect_container(sandbox.ref.id))


async def status(subject: Subject, name: str) -> str:
    return await subject.sh(f"sed -n 's/^{name}:[[:space:]]*//p' /proc/self/status")


async def test_user_is_not_root(subject: Subject) -> None:
    assert subject.found["Config"]["User"] == "10001:10001"
    assert await subject.sh("id -u; id -g") == "10001\n10001"


async def test_no_capabilities(subject: Subject) -> None:
    assert subject.host["CapDrop"] == ["ALL"]
    assert not subject.host["CapAdd"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(await status(subject, name), 16) == 0, name


async def test_no_new_privileges(subject: Subject) -> None:
    assert "no-new-privileges" in subject.host["SecurityOpt"]
    assert await status(subject, "NoNewPrivs") == "1"


async def test_our_seccomp_profile(subject: Subject) -> None:
    assert any(option.startswith("seccomp={") for option in subject.host["SecurityOpt"])
    assert await status(subject, "Seccomp") == "2"
    probe = (
        "import ctypes, socket\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.syscall(425, 8, 0), ctypes.get_errno())\n"
        "for family in (38, 40):\n    try: socket.socket(family, socket.SOCK_SEQPACKET)\n"
        "    except OSError as error: print(error.errno)"
    )
    # io_uring_setup, AF_ALG, AF_VSOCK: not permitted, rather than merely not there.
    assert await subject.python(probe) == "-1 1\n1\n1"


async def test_root_file_system_is_read_only(subject: Subject) -> None:
    assert subject.host["ReadonlyRootfs"] is True
    assert "Read-only file system" in await subject.sh("touch /etc/x 2>&1; touch /x 2>&1")
    options = await subject.sh("awk '$2 == \"/\" {print $4}' /proc/mounts")
    assert options.split(",")[0] == "ro"


@pytest.mark.parametrize(
    ("path", "size", "inodes"),
    [("/tmp", 256 * MiB, 16_384), ("/home/sandbox", 64 * MiB, 4096), ("/workspace", 512 * MiB, 32_768)],
)
async def test_file_systems_in_memory_are_bounded(subject: Subject, path: str, size: int, inodes: int) -> None:
    options = subject.host["Tmpfs"][path]
    assert f"size={size}" in options
    mounted = (await subject.sh(f"awk '$2 == \"{path}\" {{print $3, $4}}' /proc/mounts")).replace(" ", ",").split(",")
    assert {"tmpfs", "rw", "nosuid", "nodev"} <= set(mounted)
    found = await subject.python(f"import os; s = os.statvfs('{path}'); print(s.f_blocks * s.f_frsize, s.f_files)")
    assert found == f"{size} {inodes}"


async def test_memory_without_swap(subject: Subject) -> None:
    assert (subject.host["Memory"], subject.host["MemorySwap"]) == (1024 * MiB, 1024 * MiB)
    assert (await subject.sandbox.usage()).memory_limit == 1024 * MiB


async def test_one_processor(subject: Subject) -> None:
    assert subject.host["NanoCpus"] == 1_000_000_000
    quota = await subject.sh(
        "cat /sys/fs/cgroup/cpu.max 2>/dev/null || "
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us"
    )
    assert quota.split() == ["100000", "100000"]


async def test_processes(subject: Subject) -> None:
    assert subject.host["PidsLimit"] == 256
    assert (await subject.sandbox.usage()).pids_limit == 256


async def test_resource_limits_of_a_process(subject: Subject) -> None:
    assert {limit["Name"]: limit["Hard"] for limit in subject.host["Ulimits"]} == {
        "nofile": 4096,
        "core": 0,
        "fsize": 2048 * MiB,
    }
    probe = (
        "import resource as r; print(*[r.getrlimit(n)[1] for n in (r.RLIMIT_NOFILE, r.RLIMIT_CORE, r.RLIMIT_FSIZE)])"
    )
    assert await subject.python(probe) == f"4096 0 {2048 * MiB}"


async def test_namespaces_are_private(subject: Subject) -> None:
    assert (subject.host["IpcMode"], subject.host["CgroupnsMode"], subject.host["PidMode"]) == (
        "private",
        "private",
        "",
    )
    for name in ("ipc", "cgroup", "pid", "net", "mnt", "uts"):
        inside = await subject.sh(f"readlink /proc/self/ns/{name}")
        assert inside != str(Path(f"/proc/self/ns/{name}").readlink()), name
    assert await subject.sh("cat /proc/1/comm") == "runner"


async def test_network_is_off_but_loopback_works(subject: Subject) -> None:
    assert subject.found["Config"]["NetworkDisabled"] is True
    assert subject.host["NetworkMode"] == "none"
    assert await subject.sh("ls /sys/class/net") == "lo"
    assert await subject.python("import socket; print([name for _, name in socket.if_nameindex()])") == "['lo']"
    probe = (
        "import socket\nserver = socket.create_server(('localhost', 0))\n"
        "socket.create_connection(('localhost', server.getsockname()[1])); print('loopback works')\n"
        "for address in ('192.0.2.1', '198.51.100.1', '203.0.113.1'):\n"
        "    try: socket.create_connection((address, 80), 3)\n    except OSError as error: print(error.errno)"
    )
    assert await subject.python(probe) == "loopback works\n101\n101\n101"


async def test_it_is_never_restarted_and_leaves_nothing(subject: Subject) -> None:
    assert subject.host["RestartPolicy"]["Name"] == "no"
    assert subject.host["AutoRemove"] is True


async def test_its_log_is_bounded(subject: Subject) -> None:
    assert subject.host["LogConfig"] == {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}}
    # What runs inside cannot write to it, since the runner's descriptors are out of reach.
    assert "denied" in await subject.sh("echo forged > /proc/1/fd/1")
    assert "forged" not in await subject.sandbox.logs()


async def test_no_devices_no_host_namespaces_no_privileges(subject: Subject) -> None:
    assert subject.host["Privileged"] is False
    assert not subject.host["Devices"]
    devices = await subject.sh("find /dev -type b -o -type c | sort | tr '\\n' ' '")
    assert set(devices.split()) <= {
        f"/dev/{name}" for name in ("full", "null", "pts/ptmx", "random", "tty", "urandom", "zero")
    }


async def test_the_environment_is_an_explicit_list(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_SECRET", "s3cret")
    names = {line.split("=")[0] for line in (await subject.sh("env")).splitlines()}
    ours = {"HOME", "USER", "LOGNAME", "LANG", "TERM", "PYTHONDONTWRITEBYTECODE"}
    dockers = {"PATH", "HOSTNAME", "PWD", "SHLVL", "_"}
    images = {"PYTHON_VERSION", "PYTHON_SHA256", "GPG_KEY"}
    assert ours <= names <= ours | dockers | images
    assert "s3cret" not in str(subject.found)


async def test_mounts_are_the_runner_and_hosts_read_only(subject: Subject) -> None:
    assert {mount["Destination"]: mount["RW"] for mount in subject.found["Mounts"]} == {
        "/.sandbox/bin": False,
        "/etc/hosts": False,
    }
    assert "denied" in await subject.sh("touch /.sandbox/bin/x") or "Read-only" in await subject.sh(
        "touch /.sandbox/bin/x"
    )


async def test_the_runner_cannot_be_traced_or_killed_from_inside(subject: Subject) -> None:
    assert "denied" in await subject.sh("cat /proc/1/mem 2>&1; ls /proc/1/fd 2>&1")
    probe = (
        "import ctypes, resource\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())\n"
        "print(resource.prlimit(0, resource.RLIMIT_NOFILE))\n"
        "try: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))\nexcept PermissionError: print('refused')"
    )
    assert await subject.python(probe) == "-1 1\n(4096, 4096)\nrefused"
    kill_all_signals = "for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; echo sent"
    assert await subject.sh(kill_all_signals) == "sent"
    assert await subject.sh("echo alive") == "alive"
