"""One tenant with the ids of another, in every call that takes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, WorkspaceRef
from pydantic_ai.models.test import TestModel

from pydantic_ai_sandbox import ConsoleToolset, SessionManager, UserSandbox
from tests.attacks.families.files import SECRET, content, our_users, users
from tests.attacks.lab import Lab
from tests.attacks.registry import Family

family = Family("tenants")

TRUSTED = "the id taken as it comes"


@dataclass
class Deps:
    user_id: str


def _agent(manager: SessionManager) -> Agent[Deps, str]:
    capabilities = [UserSandbox[Deps](manager)]
    return Agent(TestModel(call_tools=["ls"]), deps_type=Deps, capabilities=capabilities, toolsets=[ConsoleToolset()])


def _by_container_naive(lab: Lab) -> bool:
    # The id comes out of a conversation that the browser sent.
    victim = lab.another_plain()
    victim.sh("echo private > /secret")
    return "private" in lab.host(["docker", "exec", victim.id, "cat", "/secret"])


Choose = Callable[[SessionManager, str], WorkspaceRef]

REFS: dict[str, Choose] = {
    "the session": lambda manager, _: manager.ref("bob"),
    "the container": lambda _, container: WorkspaceRef(provider="pydantic-ai-sandbox-docker", id=container),
    "the container, as a session": lambda _, container: WorkspaceRef(
        provider="pydantic-ai-sandbox-session", id=container
    ),
    "the conversation's name": lambda manager, _: manager.ref("bob", scope="default2"),
}


async def _by_ref_ours(choose: Choose, lab: Lab) -> bool:
    manager = lab.manager()
    info = (await manager.get_or_create("bob")).info
    assert info is not None
    with pytest.raises(UserError):
        await _agent(manager).run("go", deps=Deps("mallory"), workspace=choose(manager, info.id))
    return [session.user_id for session in await manager.list()] != ["bob"]


for _name, _choose in REFS.items():
    family.pair(
        f"names another's sandbox by {_name}",
        against=TRUSTED,
        naive=_by_container_naive,
        ours=partial(_by_ref_ours, _choose),
    )


async def _history_ours(lab: Lab) -> bool:
    manager = lab.manager()
    await (await manager.get_or_create("bob")).write_bytes("/workspace/secret", SECRET)
    agent = _agent(manager)
    history: list[ModelMessage] = (await agent.run("go", deps=Deps("bob"))).all_messages()
    with pytest.raises(UserError):
        await agent.run("go on", deps=Deps("mallory"), message_history=history)
    return "mallory" in [session.user_id for session in await manager.list()]


family.pair(
    "goes on with another's conversation", against=TRUSTED, naive=_by_container_naive, ours=_history_ours, quick=True
)

# --- paths


def _by_path_naive(lab: Lab) -> bool:
    alice, _ = users(lab)
    return (alice / "../bob/secret").read_bytes() == SECRET


PATHS = ("../bob/secret", "/workspace/../bob/secret", "/workspace/../../users/bob/secret", "./.././bob/secret")


async def _refused(call: Callable[[str], object], expected: type[Exception] | tuple[type[Exception], ...]) -> None:
    for path in PATHS:
        with pytest.raises(expected):
            await call(path)  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]


async def _by_path_ours(name: str, lab: Lab) -> bool:
    manager, _ = await our_users(lab)
    calls: dict[str, Callable[[str], object]] = {
        "downloads": lambda path: manager.download("alice", path),
        "uploads": lambda path: manager.upload("alice", path, b"overwritten"),
        "lists": lambda path: manager.list_files("alice", str(Path(path).parent)),
        "archives": lambda path: manager.archive("alice", str(Path(path).parent)),
    }
    await _refused(calls[name], PermissionError)
    return await content(await manager.download("bob", "secret")) != SECRET


for _name in ("downloads", "uploads", "lists", "archives"):
    family.pair(
        f"{_name} by a path into another's directory",
        against="`open(root / user / path)`",
        naive=_by_path_naive,
        ours=partial(_by_path_ours, _name),
    )

# --- checkpoints and jobs


def _checkpoint_naive(lab: Lab) -> bool:
    for name in ("alice", "bob"):
        (lab.place / "checkpoints" / name).mkdir(parents=True)
    (lab.place / "checkpoints/bob/1").write_bytes(SECRET)
    return (lab.place / "checkpoints/alice" / "../bob/1").read_bytes() == SECRET


async def _checkpoint_ours(lab: Lab) -> bool:
    manager, _ = await our_users(lab)
    theirs = await manager.checkpoint("bob")
    await manager.checkpoint("alice")
    for id in (theirs, f"../bob/{theirs}", f"/{theirs}", "..", "", f"{theirs}/../{theirs}"):
        for call in (manager.restore, manager.delete_checkpoint):
            with pytest.raises(FileNotFoundError):
                await call("alice", id)
    listing = await manager.list_files("alice")
    return len(await manager.checkpoints("bob")) != 1 or [entry.name for entry in listing.entries] != ["f"]


family.pair(
    "restores or deletes another's checkpoint",
    against="`root / user / id`",
    naive=_checkpoint_naive,
    ours=_checkpoint_ours,
)


def _fork_naive(lab: Lab) -> bool:
    users(lab)
    lab.host(["cp", "-r", f"{lab.place}/alice/.", f"{lab.place}/bob"])
    return True


async def _fork_ours(lab: Lab) -> bool:
    manager, _ = await our_users(lab)
    with pytest.raises(FileExistsError):
        await manager.fork("alice", "bob")
    return [entry.name for entry in (await manager.list_files("bob")).entries] != ["secret"]


family.pair("copies its own files over another's", against="`cp -r`", naive=_fork_naive, ours=_fork_ours)


def _job_naive(lab: Lab) -> bool:
    plain = lab.another_plain()
    plain.start(["sleep", "77"])
    assert plain.shows(lambda processes: "sleep 77" in processes)
    plain.sh("kill -9 -1")
    return plain.shows(lambda processes: "sleep 77" not in processes)


async def _job_ours(lab: Lab) -> bool:
    manager = lab.manager()
    bob, alice = [await manager.get_or_create(user) for user in ("bob", "alice")]
    job = await bob.start_job(["sleep", "77"])
    own = await alice.start_job(["sleep", "77"])
    await own.stop()
    with pytest.raises(LookupError):
        await alice.job(f"{job.id}9").stop()
    await alice.kill_all()
    return not (await job.info()).running


family.pair("stops another's background command", against="one container for all", naive=_job_naive, ours=_job_ours)
