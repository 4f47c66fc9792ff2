"""What the author of an image, or of a container with our name, has left for us to find."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import RuntimeConfig, SandboxError, SessionManager
from pydantic_ai_sandbox.engines.docker.hardening import LABEL, OWNER_LABEL
from tests.attacks.lab import Lab
from tests.attacks.registry import DEFAULT, Family

family = Family("images")

MIB = 1024 * 1024

# --- what an image declares


def _root_naive(lab: Lab) -> bool:
    image = lab.image("root", "USER 0")
    return lab.host(["docker", "run", "--rm", image, "id", "-u"]).strip() == "0"


async def _root_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(image=lab.image("root", "USER 0"))
    return (await sandbox.run(["id", "-u"])).stdout.strip() == "0"


family.pair("declares that it runs as root", against="`docker run`", naive=_root_naive, ours=_root_ours, quick=True)

HIJACK = ('ENTRYPOINT ["echo", "hijacked"]', 'CMD ["forever"]')


def _entrypoint_naive(lab: Lab) -> bool:
    return "hijacked" in lab.host(["docker", "run", "--rm", lab.image("entry", *HIJACK), "id", "-u"])


async def _entrypoint_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(image=lab.image("entry", *HIJACK))
    return (await sandbox.run(["id", "-u"])).stdout.strip() != "10001" or "hijacked" in await sandbox.logs()


family.pair(
    "puts a program in front of every command", against="`docker run`", naive=_entrypoint_naive, ours=_entrypoint_ours
)

SETTINGS = (
    "ENV LD_PRELOAD=/evil.so PYTHONSTARTUP=/evil.py PYTHONHOME=/nowhere BASH_ENV=/evil ENV=/evil",
    "ENV GOMEMLIMIT=1 GOGC=1 GOMAXPROCS=1 GODEBUG=gctrace=1,asyncpreemptoff=1 GOTRACEBACK=crash GOCOVERDIR=/tmp",
)


def _settings_naive(lab: Lab) -> bool:
    plain = lab.another_plain(["python3", "-c", "import time; time.sleep(60)"], image=lab.image("env", *SETTINGS))
    return not plain.runs()


async def _settings_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(image=lab.image("env", *SETTINGS))
    for _ in range(50):
        await sandbox.write_bytes("/workspace/f", bytes(100_000))
    began = time.monotonic()
    alive = (await sandbox.run(["/bin/echo", "alive"], timeout=10)).stdout
    assert (await sandbox.usage()).runner_rss < 64 * MIB
    assert time.monotonic() - began < 2
    return alive != "alive\n"


family.pair(
    "declares settings that break the agent in it",
    against="an agent as PID 1",
    naive=_settings_naive,
    ours=_settings_ours,
)

VOLUME = ("USER 0", "RUN mkdir /data && chmod 777 /data", "VOLUME /data")
FILL = f"with open('/data/fill', 'wb') as f:\n    for _ in range(320): f.write(bytes({MIB}))"


def _volume_naive(lab: Lab) -> bool:
    return lab.another_plain(image=lab.image("volume", *VOLUME)).attempt(FILL).error is None


async def _volume_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(image=lab.image("volume", *VOLUME))
    return (await lab.attempt(FILL, sandbox=sandbox)).error is None


family.pair("declares a volume, which is the host's disk", against=DEFAULT, naive=_volume_naive, ours=_volume_ours)

HEALTH = ("HEALTHCHECK --interval=1s --start-period=1s CMD touch /tmp/healthy",)


def _health_naive(lab: Lab) -> bool:
    plain = lab.another_plain(image=lab.image("health", *HEALTH))
    return plain.sh("for i in $(seq 30); do test -e /tmp/healthy && echo ran && break; sleep 0.1; done") == "ran\n"


async def _health_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(image=lab.image("health", *HEALTH))
    await sandbox.run(["sleep", "1.5"])
    return await sandbox.exists("/tmp/healthy")


family.pair(
    "declares a health check that runs for ever", against="`docker run`", naive=_health_naive, ours=_health_ours
)

STOP = ("STOPSIGNAL SIGCONT",)


def _stop_naive(lab: Lab) -> bool:
    plain = lab.another_plain(image=lab.image("stop", *STOP))
    began = time.monotonic()
    plain.container.stop(timeout=2)
    return time.monotonic() - began > 2


async def _stop_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(image=lab.image("stop", *STOP))
    assert sandbox.ref is not None
    found = lab.plains.client.api.inspect_container(sandbox.ref.id)
    began = time.monotonic()
    await sandbox.destroy()
    return found["Config"]["StopSignal"] != "SIGKILL" or time.monotonic() - began > 2


family.pair(
    "declares a signal to stop by that stops nothing", against="`docker stop`", naive=_stop_naive, ours=_stop_ours
)

# --- labels


def _claims(manager: SessionManager, *lines: str) -> list[str]:
    """Labels of an image that say of every container of it that it belongs to bob."""
    labels = {"namespace": manager._namespace, "user": "bob", "scope": "default"}
    return [f"LABEL {json.dumps(OWNER_LABEL + name)}={json.dumps(value)}" for name, value in labels.items()] + [*lines]


def _label_naive(lab: Lab) -> bool:
    image = lab.image("label", 'LABEL user="bob"')
    lab.another_plain(image=image)
    return bool(lab.plains.client.containers.list(filters={"label": "user=bob", "ancestor": image}))


async def _label_ours(lab: Lab) -> bool:
    manager = lab.manager()
    await manager.get_or_create("alice")
    other = await lab.another_sandbox(image=lab.image("label", *_claims(manager)))
    claimed = [session.user_id for session in await manager.list()] != ["alice"]
    await manager.stop("bob")
    assert other.info is not None
    return claimed or other.info.id not in [info.id for info in lab.engine.find({})]


family.pair(
    "labels an image so that its containers are another's",
    against="`docker ps --filter label`",
    naive=_label_naive,
    ours=_label_ours,
)


def _half_naive(lab: Lab) -> bool:
    image = lab.image("half", 'LABEL session="1"')
    lab.another_plain(image=image)
    with pytest.raises(KeyError):
        for container in lab.plains.client.containers.list(filters={"ancestor": image}):
            container.labels["user"]
    return True


async def _half_ours(lab: Lab) -> bool:
    manager = lab.manager()
    await manager.get_or_create("alice")
    await lab.another_sandbox(image=lab.image("half", _claims(manager)[0]))
    return [session.user_id for session in await manager.list()] != ["alice"]


family.pair(
    "labels an image so that nobody can be listed any more",
    against='`labels["user"]`',
    naive=_half_naive,
    ours=_half_ours,
)


async def _own_label_ours(lab: Lab) -> bool:
    (lab.place / "runtime").mkdir()
    lines = [f"FROM {lab.plains.image}", f'LABEL "{OWNER_LABEL}warm"="1"', f'LABEL "{OWNER_LABEL}user"="bob"']
    (lab.place / "runtime/Dockerfile").write_text("\n".join(lines) + "\n")
    runtime = RuntimeConfig(name="test-attack", dockerfile=lab.place / "runtime")
    manager = lab.manager()
    sandbox = await manager.get_or_create("alice", runtime=runtime)
    assert sandbox.info is not None
    image = sandbox.info.spec.image
    lab.later(lambda: lab.plains.client.images.remove(image, force=True))
    sessions = [session.user_id for session in await manager.list()]
    # Another worker finds it, too.
    again = await lab.manager().get_or_create("alice", runtime=runtime)
    return sessions != ["alice"] or again.ref != sandbox.ref


family.pair(
    "labels an image so that its sandbox is nobody's",
    against="`docker ps --filter label`",
    naive=_label_naive,
    ours=_own_label_ours,
)

# --- containers with our name


def _foreign(lab: Lab, name: str, **labels: str) -> None:
    lab.another_plain(name=name, user="10001", labels={f"{LABEL}.managed": "attack", **labels})


def _name_naive(lab: Lab) -> bool:
    lab.another_plain(name="sandbox-of-alice").sh("echo hostile > /tmp/who")
    return "hostile" in lab.host(["docker", "exec", "sandbox-of-alice", "cat", "/tmp/who"])


async def _name_ours(lab: Lab) -> bool:
    manager = lab.manager()
    _foreign(lab, f"sandbox-{manager.ref('alice').id}")
    with pytest.raises((SandboxError, WorkspaceUnavailableError), match="not a sandbox of ours"):
        await manager.get_or_create("alice")
    return False


family.pair(
    "has a container of its own under a session's name",
    against="`docker exec NAME`",
    naive=_name_naive,
    ours=_name_ours,
    quick=True,
)


async def _other_ours(lab: Lab) -> bool:
    manager = lab.manager()
    mallory = await manager.get_or_create("mallory")
    assert mallory.info is not None
    spec = mallory.info.spec.model_dump_json()
    # All of our labels, but another's.
    owner = {f"{OWNER_LABEL}{name}": value for name, value in mallory.info.labels.items()}
    _foreign(lab, f"sandbox-{manager.ref('alice').id}", **{f"{LABEL}.spec": spec, **owner})
    with pytest.raises((SandboxError, WorkspaceUnavailableError)):
        await manager.get_or_create("alice")
    return False


family.pair(
    "has a sandbox of its own under another's name", against="`docker exec NAME`", naive=_name_naive, ours=_other_ours
)

# --- files of an image

PLANTED = ("USER 0", "RUN mkdir -p /.sandbox && ln -s /tmp /.sandbox/run && ln -s /usr/local/bin /.sandbox/bin")


def _laid_naive(lab: Lab) -> bool:
    socket = lab.place / "socket"
    socket.write_text("the host's")
    plain = lab.another_plain(image=lab.image("laid", "USER 0", f"RUN ln -s {socket} /agent-socket"))
    # The host looks for the agent's socket in the container, from outside.
    plain.container.reload()
    pid = plain.container.attrs["State"]["Pid"]
    return Path(f"/proc/{pid}/root/agent-socket").read_text() == "the host's"


async def _laid_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(image=lab.image("laid", *PLANTED))
    answer = await sandbox.run(["echo", "alive"])
    return answer.stdout != "alive\n"


family.pair(
    "lays links where the agent's socket will be",
    against="`open(/proc/PID/root/…)`",
    naive=_laid_naive,
    ours=_laid_ours,
)
