"""The whole of what Docker is asked for, as one snapshot: a wall that moves shows up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pydantic_ai_sandbox import ResourceLimits
from pydantic_ai_sandbox.engines.docker.hardening import RunnerVolume, container_config
from pydantic_ai_sandbox.spec import ContainerSpec, VolumeMount

RUNNER = RunnerVolume(name="runner-volume", hosts_file="/var/lib/docker/volumes/runner-volume/_data/hosts")

MiB = 1024 * 1024

DEFAULT: dict[str, Any] = {
    "Image": "some-image",
    "User": "10001:10001",
    "WorkingDir": "/workspace",
    "Entrypoint": ["/.sandbox/bin/runner"],
    "Cmd": [
        "serve", "--socket", "/.sandbox/run/socket", "--workdir", "/workspace", "--idle", "1800", "--lifetime", "0",
    ],
    "Env": ["HOME=/home/sandbox", "USER=sandbox", "LOGNAME=sandbox", "LANG=C.UTF-8", "TERM=dumb", "PYTHONDONTWRITEBYTECODE=1"],
    "Hostname": "sandbox",
    "Labels": {"pydantic-ai-sandbox.managed": "1"},
    "NetworkDisabled": True,
    "StopSignal": "SIGKILL",
    "Healthcheck": {"Test": ["NONE"]},
    "OpenStdin": False,
    "Tty": False,
    "HostConfig": {
        "AutoRemove": True,
        "RestartPolicy": {"Name": "no"},
        "NetworkMode": "none",
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "Devices": [],
        "PublishAllPorts": False,
        "Memory": 1024 * MiB,
        "MemorySwap": 1024 * MiB,
        "NanoCpus": 1_000_000_000,
        "PidsLimit": 256,
        "Ulimits": [
            {"Name": "nofile", "Soft": 4096, "Hard": 4096},
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": 2048 * MiB, "Hard": 2048 * MiB},
        ],
        "LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}},
        "Mounts": [
            {
                "Type": "volume",
                "Source": "runner-volume",
                "Target": "/.sandbox/bin",
                "ReadOnly": True,
                "VolumeOptions": {"NoCopy": True},
            },
            {
                "Type": "bind",
                "Source": "/var/lib/docker/volumes/runner-volume/_data/hosts",
                "Target": "/etc/hosts",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rslave"},
            },
        ],
        "Tmpfs": {
            "/.sandbox/run": "rw,nosuid,nodev,noexec,size=65536,nr_inodes=64,uid=10001,gid=10001,mode=0700",
            "/tmp": "rw,nosuid,nodev,exec,size=268435456,nr_inodes=16384,uid=10001,gid=10001,mode=1777",
            "/home/sandbox": "rw,nosuid,nodev,exec,size=67108864,nr_inodes=4096,uid=10001,gid=10001,mode=0700",
            "/workspace": "rw,nosuid,nodev,exec,size=536870912,nr_inodes=32768,uid=10001,gid=10001,mode=0755",
        },
    },
}  # fmt: skip


def config(**options: Any) -> dict[str, Any]:
    """The request, without what has a test of its own: the seccomp profile and the labels that repeat the spec."""
    made = container_config(ContainerSpec(image="some-image", **options), RUNNER)
    made["Labels"] = {name: value for name, value in made["Labels"].items() if name.endswith("managed")}
    options = made["HostConfig"]["SecurityOpt"]
    made["HostConfig"]["SecurityOpt"] = [option for option in options if not option.startswith("seccomp=")]
    return made


def changes(before: Any, after: Any, path: str = "") -> dict[str, Any]:
    """What differs, by dotted path."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: dict[str, Any] = {}
        for key in before.keys() | after.keys():
            found |= changes(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        return found
    return {} if before == after else {path: after}


def test_the_default_is_closed() -> None:
    assert config() == DEFAULT


def test_a_volume_of_the_image_is_memory_unless_something_of_ours_is_there() -> None:
    declared = ("/data", "/data/deep/", "/workspace", "/tmp", "/.sandbox/bin")

    def tmpfs(**options: Any) -> dict[str, str]:
        spec = ContainerSpec(image="some-image", **options)
        return container_config(spec, RUNNER, image_volumes=declared)["HostConfig"]["Tmpfs"]

    memory = "rw,nosuid,nodev,exec,size=268435456,nr_inodes=16384,uid=10001,gid=10001,mode=0755"
    ours = DEFAULT["HostConfig"]["Tmpfs"]
    assert tmpfs() == {"/data": memory, "/data/deep": memory, **ours}
    mounted = VolumeMount(source=Path("/srv/data"), target="/data")
    assert tmpfs(volumes=(mounted,)) == {"/data/deep": memory, **ours}
    assert tmpfs(persistent=True).keys() == {"/.sandbox/run", "/tmp"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"network": "bridge"}, {"NetworkDisabled": False, "HostConfig.NetworkMode": "bridge"}),
        ({"oci_runtime": "runsc"}, {"HostConfig.Runtime": "runsc"}),
        (
            {"uid": 0, "allow_root": True, "extra_caps": ("cap_chown", "NET_RAW")},
            {
                "User": "0:0",
                "HostConfig.CapAdd": ["CHOWN", "NET_RAW"],
                **{
                    f"HostConfig.Tmpfs.{path}": options.replace("=10001", "=0")
                    for path, options in DEFAULT["HostConfig"]["Tmpfs"].items()
                },
            },
        ),
        ({"env": {"A": "b=c"}}, {"Env": [*DEFAULT["Env"], "A=b=c"]}),
        ({"limits": ResourceLimits(pids=64)}, {"HostConfig.PidsLimit": 64}),
        ({"limits": ResourceLimits(cpus=2.5)}, {"HostConfig.NanoCpus": 2_500_000_000}),
        (
            {"idle_timeout": 5, "max_lifetime": 9},
            {"Cmd": [*DEFAULT["Cmd"][:6], "5", "--lifetime", "9"]},
        ),
        (
            {"workspace": Path("/srv/alice")},
            {
                "HostConfig.Tmpfs./workspace": None,
                "HostConfig.Mounts": [
                    *DEFAULT["HostConfig"]["Mounts"],
                    {
                        "Type": "bind",
                        "Source": "/srv/alice",
                        "Target": "/workspace",
                        "ReadOnly": False,
                        "BindOptions": {"Propagation": "rprivate"},
                    },
                ],
            },
        ),
        (
            {"persistent": True},
            {
                "HostConfig.AutoRemove": False,
                "HostConfig.ReadonlyRootfs": False,
                "HostConfig.Tmpfs./workspace": None,
                "HostConfig.Tmpfs./home/sandbox": None,
            },
        ),
    ],
)
def test_an_option_moves_what_it_says_and_nothing_else(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changes(DEFAULT, config(**options)) == expected


def test_a_volume_is_a_mount_that_does_not_propagate() -> None:
    volume = VolumeMount(source=Path("/srv/data"), target="/workspace/data", read_only=True)
    assert config(volumes=(volume,))["HostConfig"]["Mounts"][-1] == {
        "Type": "bind",
        "Source": "/srv/data",
        "Target": "/workspace/data",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate"},
    }


def test_the_seccomp_profile_denies_by_default_and_lacks_the_known_holes() -> None:
    (option,) = [
        option
        for option in container_config(ContainerSpec(image="x"), RUNNER)["HostConfig"]["SecurityOpt"]
        if option.startswith("seccomp=")
    ]
    profile = json.loads(option.removeprefix("seccomp="))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    denied = {"io_uring_setup", "mount", "unshare", "setns", "bpf", "keyctl", "kexec_load", "userfaultfd", "clone3"}
    assert not denied & allowed
    assert {"execve", "openat", "clone", "futex", "socket"} <= allowed
    sockets = [rule["args"] for rule in profile["syscalls"] if rule["names"] == ["socket"]]
    assert sorted(arguments[0]["value"] for arguments in sockets) == [1, 2, 10, 16]


@pytest.mark.parametrize(
    "options",
    [
        {"uid": 0},
        {"allow_root": True},
        {"extra_caps": ("CHOWN",)},
        {"uid": 0, "allow_root": True, "extra_caps": ("SYS_ADMIN",)},
        {"uid": 0, "allow_root": True, "extra_caps": ("cap_sys_ptrace",)},
        {"uid": 0, "allow_root": True, "extra_caps": ("DAC_READ_SEARCH",)},
        {"uid": 0, "allow_root": True, "extra_caps": ("MKNOD",)},
        {"uid": 0, "allow_root": True, "extra_caps": ("ALL",)},
        {"uid": 0, "allow_root": True, "extra_caps": ("NOSUCH",)},
        {"uid": 0, "allow_root": True, "extra_caps": ("SETUID",)},
        {"uid": 0, "allow_root": True, "workspace": Path("/data/alice")},
        {"uid": 0, "allow_root": True, "volumes": (VolumeMount(source=Path("/data"), target="/data"),)},
        {"privileged": True},
        {"network": "host"},
        {"network": "container:other"},
        {"env": {"A=B": "c"}},
        {"env": {"A": "b\0c"}},
        {"idle_timeout": -1},
        {"workspace": Path("/")},
        {"workspace": Path("/etc")},
        {"workspace": Path("relative")},
        {"limits": {"pids": 0}},
        {"limits": {"memory": "1"}},
        {"limits": {"cpus": 0}},
    ],
)
def test_what_would_open_a_wall_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ContainerSpec(image="x", **options)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("/", "/data"),
        ("/var/run/docker.sock", "/data"),
        ("/var/lib/docker/volumes/x/_data", "/data"),
        ("/proc/1/root", "/data"),
        ("/run/user/1000/docker.sock", "/data"),
        ("/run/systemd/private", "/data"),
        ("/var/run/dbus", "/data"),
        ("/srv/../etc", "/data"),
        ("/srv/data", "/"),
        ("/srv/data", "/proc"),
        ("/srv/data", "/.sandbox/bin"),
        ("/srv/data", "/workspace/../etc"),
        ("/srv/data", "relative"),
        ("/srv/data", "/a\0b"),
    ],
)
def test_a_volume_that_hands_out_the_host_or_covers_a_wall_is_refused(source: str, target: str) -> None:
    with pytest.raises(ValidationError):
        VolumeMount(source=Path(source), target=target)


def test_what_is_unsafe_is_said_in_a_label() -> None:
    assert "pydantic-ai-sandbox.unsafe" not in container_config(ContainerSpec(image="x"), RUNNER)["Labels"]
    spec = ContainerSpec(image="x", uid=0, allow_root=True, extra_caps=("SETUID", "KILL"))
    labels = container_config(spec, RUNNER)["Labels"]
    assert labels["pydantic-ai-sandbox.unsafe"] == "allow_root extra_caps=KILL,SETUID"
    assert ContainerSpec.model_validate_json(labels["pydantic-ai-sandbox.spec"]) == spec


def test_root_may_read_a_directory_of_the_host() -> None:
    volume = VolumeMount(source=Path("/data"), target="/data", read_only=True)
    assert ContainerSpec(image="x", uid=0, allow_root=True, volumes=(volume,)).volumes == (volume,)


def test_equal_specs_have_equal_digests_and_different_ones_do_not() -> None:
    assert ContainerSpec(image="x").digest() == ContainerSpec(image="x").digest()
    assert ContainerSpec(image="x").digest() != ContainerSpec(image="x", env={"A": "b"}).digest()
