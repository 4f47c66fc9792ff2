"""What users do, chosen at random, and what each outcome means for what may be read afterwards."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from .crew import Answer
from .model import FileModel, KnownCheckpoint, UserModel
from .people import ABSENT, FORKS, USERS, file_name
from .rules import Verdict

__all__ = ("MOVES", "Game", "Move", "verify")

_LATE = 30.0
"""Seconds in which something that nobody waits for any more may still reach a file: as long as anything is held up."""

_LATE_FOR_ALL = 200.0
"""The same for what concerns all files of a user, whose thread may wait for locks and for the daemon."""

_KEPT_CHECKPOINTS = 3

_CANCELLED = 0.06
"""Share of operations that are cancelled."""


class Game(Protocol):
    """What moves are made in."""

    async def ask(
        self, deed: str, user: UserModel, index: int | None, args: dict[str, Any], cancel_after: float | None
    ) -> tuple[Answer, Verdict | None]:
        """Have some worker do it."""
        ...

    def complain(self, text: str, user: UserModel, index: int | None) -> None:
        """Report that something is not as it has to be."""
        ...


Move = Callable[[Game, UserModel, random.Random], Awaitable[None]]


def _cancelled(chance: random.Random) -> float | None:
    return chance.expovariate(20) if chance.random() < _CANCELLED else None


def _nonce(chance: random.Random) -> str:
    return f"{chance.randrange(16**12):012x}"


def _scope(chance: random.Random) -> dict[str, str]:
    return {"scope": "side"} if chance.random() < 0.12 else {}


def _late(answer: Answer, seconds: float) -> float:
    """How long an operation without an answer may still be under way somewhere."""
    in_doubt = answer.cancelled or answer.died or (answer.error is not None and "ChannelError" in answer.error["bases"])
    return seconds if in_doubt else 0.0


# --- one file


def _writing(deed: str) -> Move:
    async def move(game: Game, user: UserModel, chance: random.Random) -> None:
        file = chance.choice(user.files)
        size = chance.choice((0, 100, 1_000, 5_000, 20_000, 300_000))
        nonce = _nonce(chance)
        args = {"nonce": nonce, "size": size, **_scope(chance)}
        cancel = _cancelled(chance)
        async with user.shared(), file.lock:
            await _changed(game, user, file, deed, args, nonce, cancel)

    return move


async def _changed(
    game: Game, user: UserModel, file: FileModel, deed: str, args: dict[str, Any], value: str, cancel: float | None
) -> None:
    with file.attempted([value]):
        answer, verdict = await game.ask(deed, user, file.index, args, cancel)
    if answer.ok and answer.result in (None, 0):
        file.done([value])
    elif answer.ok and answer.result == 1:
        # A command that says that it did nothing.
        return
    elif verdict is None or verdict.outcome == "unknown":
        file.unknown([value], _late(answer, _LATE))
    elif verdict.outcome == "absent":
        # Nothing to remove or edit; whatever else is written makes its directories.
        if deed not in ("remove", "edit"):
            game.complain(f"{deed} found something missing", user, file.index)
        _observed(game, user, file, ABSENT, deed)


def _observed(game: Game, user: UserModel, file: FileModel, value: str, deed: str) -> None:
    possible = sorted(file.possible)
    if not file.observed(value):
        game.complain(f"{deed} saw {value!r}, and possible is {possible}", user, file.index)


async def _edit(game: Game, user: UserModel, chance: random.Random) -> None:
    file, new = chance.choice(user.files), _nonce(chance)
    scope, cancel = _scope(chance), _cancelled(chance)
    async with user.shared(), file.lock:
        old = file.certain
        if old is None or old == ABSENT:
            return
        args = {"old": old, "nonce": new, **scope}
        with file.attempted([new]):
            answer, verdict = await game.ask("edit", user, file.index, args, cancel)
        if answer.ok:
            file.done([new])
        elif verdict is None or verdict.outcome == "unknown":
            file.unknown([new], _late(answer, _LATE))
        elif verdict.outcome == "absent":
            _observed(game, user, file, ABSENT, "edit")
        elif answer.error is not None and "EditError" in answer.error["bases"]:
            game.complain(f"the file must hold {old}, but: {answer.error['text']}", user, file.index)


async def _remove(game: Game, user: UserModel, chance: random.Random) -> None:
    file, scope, cancel = chance.choice(user.files), _scope(chance), _cancelled(chance)
    async with user.shared(), file.lock:
        await _changed(game, user, file, "remove", scope, ABSENT, cancel)


def _reading(deed: str) -> Move:
    async def move(game: Game, user: UserModel, chance: random.Random) -> None:
        file, scope, cancel = chance.choice(user.files), _scope(chance), _cancelled(chance)
        async with user.shared(), file.lock:
            answer, verdict = await game.ask(deed, user, file.index, scope, cancel)
            if answer.ok and answer.result is not None:
                _observed(game, user, file, answer.result, deed)
            elif verdict is not None and verdict.outcome == "absent":
                _observed(game, user, file, ABSENT, deed)

    return move


async def verify(game: Game, user: UserModel, file: FileModel) -> str | None:
    """Read a file in two ways, when nothing is wrong any more; returns what it is, if that could be read."""
    value = None
    for deed in ("download", "read"):
        answer, verdict = await game.ask(deed, user, file.index, {}, None)
        if not answer.ok and (verdict is None or verdict.outcome != "absent"):
            game.complain(f"{deed} does not work although nothing is wrong any more: {answer}", user, file.index)
            return None
        value = answer.result if answer.ok else ABSENT
        _observed(game, user, file, value, deed)
    return value


# --- looking around


async def _archive(game: Game, user: UserModel, chance: random.Random) -> None:
    args, cancel = {"format": chance.choice(("tar", "tar.gz"))}, _cancelled(chance)
    async with user.shared():
        with user.watched() as seen:
            answer, _ = await game.ask("archive", user, None, args, cancel)
        if answer.ok:
            found = {int(index): value for index, value in answer.result.items()}
            for index, possible in seen.items():
                if (value := found.get(index, ABSENT)) not in possible:
                    game.complain(f"the archive has {value!r}, and possible is {sorted(possible)}", user, index)


def _looking(deed: str) -> Move:
    async def move(game: Game, user: UserModel, chance: random.Random) -> None:
        file, scope, cancel = chance.choice(user.files), _scope(chance), _cancelled(chance)
        async with user.shared():
            answer, _ = await game.ask(deed, user, file.index, scope, cancel)
        if answer.ok:
            _check_names(game, user, answer.result)

    return move


def _check_names(game: Game, user: UserModel, names: Iterable[str]) -> None:
    own = {file_name(user.id, file.index).split("/", 1)[1] for file in user.files}
    foreign = [name for name in names if name not in own and not name.startswith(".")]
    if foreign:
        game.complain(f"a name that is none of the user's: {foreign[0]!r}", user, None)


def _asking(deed: str) -> Move:
    async def move(game: Game, user: UserModel, chance: random.Random) -> None:
        scope, cancel = _scope(chance), _cancelled(chance)
        async with user.shared():
            await game.ask(deed, user, None, scope, cancel)

    return move


async def _sessions(game: Game, user: UserModel, chance: random.Random) -> None:
    answer, _ = await game.ask("sessions", user, None, {}, _cancelled(chance))
    if answer.ok:
        unknown = {found.partition(FORKS)[0] for found in answer.result} - set(USERS)
        if unknown:
            game.complain(f"sessions of unknown users: {sorted(unknown)}", user, None)


# --- commands


async def _job(game: Game, user: UserModel, chance: random.Random) -> None:
    args = {"nonce": _nonce(chance), "seconds": round(chance.uniform(0, 1), 2), **_scope(chance)}
    async with user.shared():
        await game.ask("job", user, None, args, _cancelled(chance))


async def _stream(game: Game, user: UserModel, chance: random.Random) -> None:
    args = {"nonce": _nonce(chance), "size": chance.choice((1, 100_000, 2_000_000)), **_scope(chance)}
    async with user.shared():
        await game.ask("stream", user, None, args, _cancelled(chance))


# --- all of a user's files


async def _checkpoint(game: Game, user: UserModel, chance: random.Random) -> None:
    cancel = _cancelled(chance)
    async with user.shared():
        with user.watched() as seen:
            answer, verdict = await game.ask("checkpoint", user, None, {}, cancel)
        if answer.ok:
            user.checkpoints[answer.result] = KnownCheckpoint(answer.result, seen)
        elif verdict is None or verdict.outcome == "unknown":
            user.stray_checkpoints += 1


async def _checkpoints(game: Game, user: UserModel, chance: random.Random) -> None:
    """Look at the list; what nobody acknowledged is deleted, and so is the oldest of too many."""
    async with user.alone():
        answer, _ = await game.ask("checkpoints", user, None, {}, _cancelled(chance))
        if not answer.ok:
            return
        found: list[str] = answer.result
        missing = [id for id, known in user.checkpoints.items() if not known.in_doubt and id not in found]
        stray = [id for id in found if id not in user.checkpoints]
        if missing or len(stray) > user.stray_checkpoints:
            game.complain(f"checkpoints missing: {missing}, unknown: {stray} of {user.stray_checkpoints}", user, None)
        for id in stray:
            await game.ask("delete_checkpoint", user, None, {"checkpoint": id}, None)
        for id in sorted(user.checkpoints)[:-_KEPT_CHECKPOINTS]:
            await _delete_checkpoint(game, user, id, _cancelled(chance))


async def _delete_checkpoint(game: Game, user: UserModel, id: str, cancel: float | None) -> None:
    known = user.checkpoints[id]
    was_in_doubt, known.in_doubt = known.in_doubt, True
    answer, verdict = await game.ask("delete_checkpoint", user, None, {"checkpoint": id}, cancel)
    if answer.ok:
        del user.checkpoints[id]
    elif verdict is not None and verdict.outcome == "absent":
        if not was_in_doubt:
            game.complain(f"the checkpoint {id} is not there to be deleted", user, None)
        del user.checkpoints[id]


async def _restore(game: Game, user: UserModel, chance: random.Random) -> None:
    pick, cancel = chance.random(), _cancelled(chance)
    async with user.alone():
        if not user.checkpoints:
            return
        known = [*user.checkpoints.values()][int(pick * len(user.checkpoints))]
        # Nobody else looks meanwhile, so nobody needs to know what is attempted.
        answer, verdict = await game.ask("restore", user, None, {"checkpoint": known.id}, cancel)
        if answer.ok:
            for file in user.files:
                file.done(known.files[file.index])
        elif verdict is None or verdict.outcome == "unknown":
            for file in user.files:
                file.unknown(known.files[file.index], _late(answer, _LATE_FOR_ALL))
        elif verdict.outcome == "absent":
            if not known.in_doubt:
                game.complain(f"the checkpoint {known.id} is not there to be restored", user, None)
            del user.checkpoints[known.id]


async def _fork(game: Game, user: UserModel, chance: random.Random) -> None:
    """Copy the user's files for somebody new, look at the copy, and delete it."""
    cancel = _cancelled(chance)
    user.forks += 1
    new = UserModel(f"{user.id}{FORKS}{user.forks}")
    async with user.shared():
        with user.watched() as seen:
            answer, _ = await game.ask("fork", user, None, {"new": new.id}, cancel)
    if answer.ok:
        for file in new.files:
            file.possible = seen[file.index]
        for move in (_archive, _reading("download"), _reading("read")):
            await move(game, new, chance)
    for _ in range(20):
        answer, _ = await game.ask("delete", new, None, {"files": True}, None)
        if answer.ok:
            return


async def _stop(game: Game, user: UserModel, chance: random.Random) -> None:
    args, cancel = ({"scope": "default"} if chance.random() < 0.5 else {}), _cancelled(chance)
    async with user.shared():
        await game.ask("stop", user, None, args, cancel)


async def _delete_sandboxes(game: Game, user: UserModel, chance: random.Random) -> None:
    async with user.shared():
        await game.ask("delete", user, None, {"files": False}, _cancelled(chance))


async def _delete_all(game: Game, user: UserModel, chance: random.Random) -> None:
    cancel = _cancelled(chance)
    async with user.alone():
        answer, _ = await game.ask("delete", user, None, {"files": True}, cancel)
        if answer.ok:
            for file in user.files:
                file.done([ABSENT])
            user.checkpoints.clear()
            return
        # Half of it may have been done: it goes on from there when it is asked for again.
        for file in user.files:
            file.unknown([ABSENT], _late(answer, _LATE_FOR_ALL))
        for known in user.checkpoints.values():
            known.in_doubt = True


MOVES: dict[Move, float] = {
    _writing("write"): 14,
    _writing("write_text"): 4,
    _writing("write_by_command"): 5,
    _writing("upload"): 6,
    _writing("copy_to"): 3,
    _edit: 8,
    _remove: 5,
    _reading("read"): 14,
    _reading("read_text"): 4,
    _reading("cat"): 5,
    _reading("download"): 6,
    _reading("copy_from"): 3,
    _archive: 2,
    _looking("list_dir"): 4,
    _looking("list_files"): 2,
    _looking("glob"): 3,
    _looking("grep"): 3,
    _asking("usage"): 2,
    _asking("usage_of_files"): 2,
    _asking("ensure"): 4,
    _sessions: 1,
    _job: 3,
    _stream: 3,
    _checkpoint: 2,
    _checkpoints: 1.5,
    _restore: 1,
    _fork: 0.7,
    _stop: 1.5,
    _delete_sandboxes: 0.5,
    _delete_all: 0.3,
}
"""What users do, and how often."""
