"""From what was seen inside to a verdict on each wall: pure functions, one for each."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

from ..spec import ContainerSpec
from .facts import Facts
from .results import Check, Verdict

__all__ = ("WALLS", "judged", "unjudged")

_REFUSED = frozenset({errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EAFNOSUPPORT})
"""What a system call ends with that the kernel never got to see, or does not have."""

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPERM})

_NEW_NAMESPACES = ("unshare", "clone", "clone3")

_RECREATE = "something changed the container after we asked for it, or the engine ignores what we ask; make a new one"


def judged(facts: Facts, spec: ContainerSpec) -> tuple[Check, ...]:
    """Every wall, judged by what was seen; what the spec gives up on purpose is a warning."""
    return tuple(_check(name, judge(facts, spec)) for name, judge in WALLS.items())


def unjudged(reason: str) -> tuple[Check, ...]:
    """Every wall, when nothing could be seen."""
    return tuple(Check(name=name, verdict="skipped", seen=reason) for name in WALLS)


_Finding = tuple[Verdict, str, str]


def _check(name: str, finding: _Finding) -> Check:
    verdict, seen, remedy = finding
    return Check(name=name, verdict=verdict, seen=seen, remedy=remedy)


def _user(facts: Facts, spec: ContainerSpec) -> _Finding:
    if facts.uid != 0:
        return "ok", f"runs as user {facts.uid}", ""
    if spec.allow_root:
        return "warn", "runs as root, as allow_root=True asks", "leave allow_root out"
    return "fail", "runs as root", _RECREATE


def _capabilities(facts: Facts, spec: ContainerSpec) -> _Finding:
    # gVisor's kernel has no ambient set.
    sets = ("CapPrm", "CapEff", "CapBnd", *(() if facts.gvisor else ("CapAmb",)))
    held = {name: _number(facts.status.get(name)) for name in sets}
    worked = sorted(name for name, result in facts.powers.items() if result == 0)
    if not worked and not any(held.values()):
        return "ok", "no capability is held or can be; chown, mknod, raw sockets and setuid are refused", ""
    seen = ", ".join(
        [*(f"{name} {value:x}" for name, value in held.items() if value), *(f"{name} works" for name in worked)]
    )
    if facts.gvisor and worked == ["mknod"] and not any(held.values()):
        return (
            "warn",
            "no capability is held, but gVisor's kernel lets anybody make devices, of those that it has itself",
            "",
        )
    if spec.extra_caps:
        return "warn", f"{seen}, as extra_caps={spec.extra_caps!r} asks", "leave extra_caps out"
    return "fail", seen, _RECREATE


def _number(field: str | None) -> int:
    """A set of capabilities; what cannot be read counts as one that is not empty."""
    try:
        return int(field or "", 16)
    except ValueError:
        return -1


def _no_new_privileges(facts: Facts, spec: ContainerSpec) -> _Finding:
    if facts.status.get("NoNewPrivs") == "1" and facts.filter == 0:
        return "ok", "no program can gain privileges", ""
    if facts.gvisor and facts.filter == 0:
        return "ok", "no program can gain privileges, by the word of gVisor's kernel", ""
    return "fail", "setuid programs could gain privileges", _RECREATE


def _seccomp(facts: Facts, spec: ContainerSpec) -> _Finding:
    passed = _passed(facts.calls, lambda name: name not in _NEW_NAMESPACES)
    if not passed:
        return "ok", f"{len(facts.calls)} system calls are refused that ordinary programs do not need", ""
    calls = ", ".join(passed)
    if facts.gvisor:
        return "ok", f"gVisor's kernel answers, not the host's; it has {calls}", ""
    return (
        "fail",
        f"the kernel answers {calls} (Seccomp: {facts.status.get('Seccomp', 'unknown')})",
        "the engine does not apply our seccomp profile: it needs one that was built with seccomp, on a kernel that has it",
    )


def _passed(calls: Mapping[str, int | None], wanted: Callable[[str], bool]) -> list[str]:
    """System calls that got as far as the kernel."""
    return sorted(
        name
        for name, result in calls.items()
        if wanted(name) and result is not None and result >= 0 and result not in _REFUSED
    )


def _user_namespaces(facts: Facts, spec: ContainerSpec) -> _Finding:
    mapped = facts.uid_map[:2] != (0, 0)
    whose = "user ids are mapped to others on the host" if mapped else "user ids are the host's"
    passed = _passed(facts.calls, lambda name: name in _NEW_NAMESPACES)
    if not passed:
        return "ok", f"no new ones; {whose}", ""
    if facts.gvisor:
        return "ok", f"gVisor has its own ({', '.join(passed)}), of no meaning to the host; {whose}", ""
    return "fail", f"{' and '.join(passed)} can make one, in which code has all capabilities", _RECREATE


def _root_file_system(facts: Facts, spec: ContainerSpec) -> _Finding:
    if facts.root == errno.EROFS:
        return "ok", "read-only", ""
    if facts.root == errno.EACCES and facts.root_read_only:
        # A kernel may look at the user's rights first.
        return "ok", "not writable for this user, and by the kernel's word read-only", ""
    if spec.persistent:
        return "warn", "can be written to, as persistent=True asks", "leave persistent out"
    if facts.root is None:
        return "skipped", "nobody could tell", ""
    return "fail", f"not read-only ({_named(facts.root)})", _RECREATE


def _network(facts: Facts, spec: ContainerSpec) -> _Finding:
    open_to = [address for address, result in facts.routes.items() if result not in _UNREACHABLE]
    others = [name for name in facts.interfaces if name != "lo"]
    of_host = [what for what, result in _of_host(facts).items() if result == 0]
    if not open_to and not others and not of_host:
        return "ok", f"no way to any of {', '.join(facts.routes)}, nor to the host's own sockets", ""
    seen = "; ".join(
        text
        for text, there in (
            (f"interfaces {', '.join(others[:8])}", others),
            (f"ways to {', '.join(open_to)}", open_to),
            (f"reaches {' and '.join(of_host)}", of_host),
        )
        if there
    )
    if spec.network == "bridge" and not of_host:
        return "warn", f"{seen}, as network='bridge' asks", "leave network out, unless its code may reach all of that"
    return "fail", seen, _RECREATE


def _of_host(facts: Facts) -> dict[str, int | None]:
    return {"a port of the host's loopback": facts.host_tcp, "an abstract socket of the host's": facts.host_unix}


def _name_resolution(facts: Facts, spec: ContainerSpec) -> _Finding:
    if facts.name is None:
        return "skipped", "not asked for, since an answer could have come from outside", ""
    if facts.name == 0:
        return "fail", "a public name was resolved without a network", _RECREATE
    return "ok", "no public name can be resolved", ""


def _named(number: int) -> str:
    return "it worked" if number == 0 else errno.errorcode.get(number, str(number))


WALLS: Mapping[str, Callable[[Facts, ContainerSpec], _Finding]] = {
    "user": _user,
    "capabilities": _capabilities,
    "no-new-privileges": _no_new_privileges,
    "seccomp": _seccomp,
    "user namespaces": _user_namespaces,
    "root file system": _root_file_system,
    "network": _network,
    "name resolution": _name_resolution,
}
"""Each wall's name, and who judges it."""
