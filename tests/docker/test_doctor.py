"""Each check is green where the wall stands, and turns red when that wall, and no other, is taken down."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox import Check, DockerEngine, DockerSandbox, OCIRuntimeError, ResourceLimits, self_check
from pydantic_ai_sandbox.checks.doctor import Examination, examine
from pydantic_ai_sandbox.engines.docker.hardening import RunnerVolume, container_config
from pydantic_ai_sandbox.spec import ContainerSpec
from tests.docker.conftest import IDLE

pytestmark = pytest.mark.docker

SMALL = ResourceLimits.model_validate({"memory": "96MiB", "pids": 48, "cpus": 0.5, "workspace": "16MiB"})


class Breach(DockerEngine):
    """A daemon whose containers differ from what we ask for in one thing."""

    def __init__(self, change: Callable[[dict[str, Any]], object]) -> None:
        super().__init__()
        self._change = change

    def _create_with(self, volume: RunnerVolume, spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> str:
        config = copy.deepcopy(container_config(spec, volume, labels))
        self._change(config)
        return self.api().create_container_from_config(config, name)["Id"]


@pytest.fixture
async def breached() -> AsyncGenerator[Callable[..., DockerSandbox]]:
    """Builds sandboxes with one wall missing."""
    made: list[DockerSandbox] = []

    def build(change: Callable[[dict[str, Any]], object], **options: Any) -> DockerSandbox:
        settings: dict[str, Any] = {"engine": Breach(change), "idle_timeout": IDLE, "limits": SMALL, **options}
        made.append(DockerSandbox(**settings))
        return made[-1]

    yield build
    for sandbox in made:
        await sandbox.aclose()


def host(**settings: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["HostConfig"].update(settings)


def without(option: str) -> Callable[[dict[str, Any]], object]:
    """Security options but those that begin so; seccomp needs to be told that it is not wanted."""

    def change(config: dict[str, Any]) -> None:
        options = config["HostConfig"]["SecurityOpt"]
        kept = [other for other in options if not other.startswith(option)]
        config["HostConfig"]["SecurityOpt"] = [*kept, *(["seccomp=unconfined"] if option == "seccomp" else [])]

    return change


def as_root(config: dict[str, Any]) -> None:
    config["User"] = "0:0"
    # Its own files must still be its own.
    tmpfs = config["HostConfig"]["Tmpfs"]
    config["HostConfig"]["Tmpfs"] = {path: options.replace("=10001", "=0") for path, options in tmpfs.items()}


def on_the_bridge(config: dict[str, Any]) -> None:
    config["NetworkDisabled"] = False
    config["HostConfig"]["NetworkMode"] = "bridge"


def on_the_hosts_network(config: dict[str, Any]) -> None:
    on_the_bridge(config)
    config["HostConfig"]["NetworkMode"] = "host"
    # A container without a network of its own cannot have a name of its own.
    config.pop("Hostname")


def red(checks: tuple[Check, ...]) -> set[str]:
    return {check.name for check in checks if check.verdict == "fail"}


async def test_every_wall_of_a_sandbox_stands(make_sandbox: Callable[..., DockerSandbox]) -> None:
    found = await self_check(make_sandbox(limits=SMALL), exhaust=True)
    # On a busy machine, or one with a single processor, nobody can tell whether processor time is limited.
    others = [check for check in found.checks if check.verdict != "ok" and check.name != "processor limit"]
    assert others == []
    assert found["processor limit"].verdict in ("ok", "skipped")
    assert found.failed == ()


async def test_a_sandbox_in_use_is_not_disturbed(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox(limits=SMALL)
    job = await sandbox.start_job(["sleep", "60"])
    found = await self_check(sandbox)
    assert (await job.info()).running
    assert (await sandbox.usage()).oom_kills == 0
    assert found["memory limit"].verdict == found["process limit"].verdict == "ok"
    assert found["processor limit"].verdict == "skipped"
    assert found.failed == ()


@pytest.mark.parametrize(
    ("wall", "change"),
    [
        ("seccomp", without("seccomp")),
        ("no-new-privileges", without("no-new-privileges")),
        ("capabilities", host(CapAdd=["NET_RAW"])),
        ("user", as_root),
        ("root file system", host(ReadonlyRootfs=False)),
        ("network", on_the_bridge),
        ("network", on_the_hosts_network),
    ],
    ids=["seccomp", "no-new-privileges", "capabilities", "user", "root file system", "a bridge", "the host's network"],
)
async def test_a_wall_that_is_missing_is_missed(
    breached: Callable[..., DockerSandbox], wall: str, change: Callable[[dict[str, Any]], object]
) -> None:
    found = await self_check(breached(change))
    # Without a filter of system calls anybody can make user namespaces.
    with_it = {"seccomp": {"user namespaces"}}.get(wall, set())
    assert {wall} <= red(found.checks) <= {wall} | with_it
    assert all(check.remedy for check in found.failed)


async def test_user_namespaces_are_refused_by_the_filter(breached: Callable[..., DockerSandbox]) -> None:
    found = await self_check(breached(without("seccomp")))
    if Path("/proc/sys/user/max_user_namespaces").read_text() == "0\n":
        pytest.skip("this kernel makes none for anybody")
    assert found["user namespaces"].verdict == "fail"


@pytest.mark.parametrize("exhaust", [False, True])
@pytest.mark.parametrize(
    ("wall", "change"),
    [
        ("memory limit", host(Memory=0, MemorySwap=0)),
        ("process limit", host(PidsLimit=0)),
    ],
    ids=["memory", "processes"],
)
async def test_a_limit_that_is_missing_is_missed(
    breached: Callable[..., DockerSandbox], wall: str, change: Callable[[dict[str, Any]], object], exhaust: bool
) -> None:
    assert red((await self_check(breached(change), exhaust=exhaust)).checks) == {wall}


async def test_processor_time_without_a_limit_is_missed_unless_the_machine_is_too_busy(
    breached: Callable[..., DockerSandbox],
) -> None:
    found = await self_check(breached(host(NanoCpus=0)), exhaust=True)
    assert found["processor limit"].verdict in ("fail", "skipped")


async def test_a_runner_that_is_not_ours_is_missed(
    breached: Callable[..., DockerSandbox], engine: DockerEngine, docker_api: Any
) -> None:
    """An older version's volume, say: the same program with one byte more still answers."""
    api = engine.api()
    image = engine.resolve_image("pydantic-ai-sandbox/test-busybox:1", None)
    volume = "pydantic-ai-sandbox-test-stale-runner"
    ours = engine._runner_volume(image).name
    mounts = [
        {"Type": "volume", "Source": ours, "Target": "/ours", "ReadOnly": True},
        {"Type": "volume", "Source": volume, "Target": "/stale", "VolumeOptions": {"NoCopy": True}},
    ]
    command = ["sh", "-c", "cp -a /ours/* /stale/ && chmod u+w /stale/runner && echo >> /stale/runner"]
    config = {"Image": image, "Cmd": command, "NetworkDisabled": True, "HostConfig": {"Mounts": mounts}}
    copier = api.create_container_from_config(config, "pydantic-ai-sandbox-test-stale-copier")["Id"]
    try:
        api.start(copier)
        assert api.wait(copier)["StatusCode"] == 0
        sandbox = breached(lambda config: config["HostConfig"]["Mounts"][0].update(Source=volume))
        found = await self_check(sandbox)
        assert red(found.checks) == {"runner"}
        await sandbox.aclose()
    finally:
        api.remove_container(copier, force=True)
        api.remove_volume(volume, force=True)


async def test_what_was_given_up_on_purpose_is_a_warning(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox(allow_root=True, extra_caps=["CHOWN", "cap_net_raw"], limits=SMALL)
    found = await self_check(sandbox)
    assert found.failed == ()
    assert {check.name for check in found.checks if check.verdict == "warn"} == {"user", "capabilities"}
    assert "CHOWN" in found["capabilities"].seen
    kept = make_sandbox(persistent=True, network="bridge", limits=SMALL)
    found = await self_check(kept)
    await kept.destroy()
    assert found.failed == ()
    assert {check.name for check in found.checks if check.verdict == "warn"} == {"root file system", "network"}


async def test_unsafe_options_show_when_the_container_is_inspected(
    make_sandbox: Callable[..., DockerSandbox], docker_api: Any
) -> None:
    sandbox = make_sandbox(allow_root=True, extra_caps=["DAC_OVERRIDE"])
    assert (await sandbox.run("id -u; touch /root/x", shell=True)).stdout == "0\n"
    assert sandbox.ref is not None
    found = docker_api.inspect_container(sandbox.ref.id)
    assert found["Config"]["Labels"]["pydantic-ai-sandbox.unsafe"] == "allow_root extra_caps=DAC_OVERRIDE"
    assert found["HostConfig"]["CapAdd"] in (["DAC_OVERRIDE"], ["CAP_DAC_OVERRIDE"])
    assert found["HostConfig"]["CapDrop"] == ["ALL"]


async def test_root_in_a_sandbox_neither_traces_the_runner_nor_outlives_its_timeout(
    make_sandbox: Callable[..., DockerSandbox],
) -> None:
    sandbox = make_sandbox(allow_root=True)
    traced = await sandbox.run("cat /proc/1/mem /proc/1/environ; cat /proc/1/fd/2; kill -9 1; echo alive", shell=True)
    assert traced.stdout == "alive\n"
    assert traced.stderr.count("ermi") == 3
    ended = await sandbox.execute("trap '' TERM; sleep 50 & sleep 50", shell=True, timeout=1)
    assert ended.cause == "timeout"
    assert (await sandbox.run("ps ax 2>/dev/null | grep -c '[s]leep 50'", shell=True)).stdout.strip() in ("0", "")


async def test_an_image_without_python_is_not_guessed_about(
    make_sandbox: Callable[..., DockerSandbox], scratch: str
) -> None:
    found = await self_check(make_sandbox(image=scratch), exhaust=True)
    assert found["runner"].verdict == "ok"
    assert found["seccomp"].verdict == "skipped"
    assert "python3" in found["seccomp"].seen


@pytest.mark.parametrize(
    "script",
    [
        r"printf '\033]0;title\007{\"uid\": \"\342\200\256\"}'",
        "yes | head -c 5000000",
        r"printf '[%.0s' $(seq 30000)",
        r"printf '\033[2J\342\200\256gone' >&2; exit 3",
        "kill -9 $$",
    ],
    ids=["a title", "a flood", "depth", "a failure", "a death"],
)
async def test_what_a_hostile_python_says_is_bounded_and_escaped(
    make_sandbox: Callable[..., DockerSandbox], busybox: str, script: str
) -> None:
    sandbox = make_sandbox(image=busybox, env={"PATH": "/workspace:/bin"})
    await sandbox.write_bytes("/workspace/python3", f"#!/bin/sh\n{script}\n".encode())
    await sandbox.run("chmod +x /workspace/python3", shell=True)
    found = await self_check(sandbox, exhaust=True)
    assert found["runner"].verdict == "ok"
    assert found["seccomp"].verdict == "skipped"
    assert all(check.seen.isprintable() and len(check.seen) < 1000 for check in found.checks)


# --- the doctor


async def examined(**options: Any) -> dict[str, Check]:
    return {check.name: check async for check in examine(Examination(**options))}


async def test_the_doctor_finds_this_machine_well(engine: DockerEngine) -> None:
    found = await examined(engine=engine)
    assert {check.name for check in found.values() if check.verdict == "fail"} == set()
    assert found["engine"].seen.startswith("Docker ")
    assert found["image"].verdict in ("ok", "warn")
    assert found["disk quota"].verdict == "skipped"


async def test_the_doctor_says_what_holds_a_quota(engine: DockerEngine, tmp_path: Path) -> None:
    check = (await examined(engine=engine, workspace_root=tmp_path))["disk quota"]
    assert check.verdict in ("ok", "warn")
    assert check.verdict == "warn" or "filled" in check.seen


async def test_an_oci_runtime_that_the_daemon_does_not_know_is_an_error_of_its_own(
    make_sandbox: Callable[..., DockerSandbox], engine: DockerEngine
) -> None:
    with pytest.raises(OCIRuntimeError, match="'nosuch'") as failure:
        await make_sandbox(oci_runtime="nosuch").run(["true"])
    assert failure.value.oci_runtime == "nosuch"
    found = await examined(engine=engine, oci_runtime="nosuch")
    assert found["OCI runtime"].verdict == "fail"
    assert "seccomp" not in found
