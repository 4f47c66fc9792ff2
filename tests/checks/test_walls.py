"""Every verdict, from what was seen and what was asked for."""

from __future__ import annotations

import dataclasses
import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydantic_ai_sandbox.checks import Check, SelfCheck
from pydantic_ai_sandbox.checks.facts import Facts, NoFactsError, parsed
from pydantic_ai_sandbox.checks.results import printable, worst
from pydantic_ai_sandbox.checks.walls import WALLS, judged, unjudged
from pydantic_ai_sandbox.spec import ContainerSpec

CLOSED = Facts(
    uid=10001,
    release="6.1",
    gvisor=False,
    processors=2,
    status={
        "CapPrm": "0",
        "CapEff": "0",
        "CapBnd": "0000000000000000",
        "CapAmb": "0",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    },
    calls={"io_uring_setup": errno.EPERM, "clone3": errno.ENOSYS, "unshare": errno.EPERM, "AF_VSOCK": errno.EPERM},
    powers={"chown": errno.EPERM, "mknod": errno.EPERM},
    filter=0,
    root=errno.EROFS,
    root_read_only=True,
    uid_map=(0, 0, 4294967295),
    interfaces=("lo",),
    routes={"169.254.169.254": errno.ENETUNREACH},
    host_tcp=errno.ECONNREFUSED,
    host_unix=errno.ECONNREFUSED,
    name=2,
)

ROOT: dict[str, Any] = {"uid": 0, "allow_root": True}


def verdicts(spec: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    """What is not green."""
    facts = dataclasses.replace(CLOSED, **changes)
    checks = judged(facts, ContainerSpec(image="x", **(spec or {})))
    return {check.name: check.verdict for check in checks if check.verdict != "ok"}


def test_what_is_closed_is_green() -> None:
    assert verdicts() == {}


@pytest.mark.parametrize(
    ("changes", "wall"),
    [
        ({"uid": 0}, "user"),
        ({"status": {**CLOSED.status, "CapBnd": "2000"}}, "capabilities"),
        ({"status": {**CLOSED.status, "CapEff": "garbage"}}, "capabilities"),
        ({"status": {"NoNewPrivs": "1"}}, "capabilities"),
        ({"powers": {"chown": 0}}, "capabilities"),
        ({"status": {**CLOSED.status, "NoNewPrivs": "0"}}, "no-new-privileges"),
        ({"filter": errno.EACCES}, "no-new-privileges"),
        ({"calls": {"io_uring_setup": errno.EFAULT}}, "seccomp"),
        ({"calls": {"AF_VSOCK": 0}}, "seccomp"),
        ({"calls": {"unshare": 0}}, "user namespaces"),
        ({"calls": {"clone3": errno.EINVAL}}, "user namespaces"),
        ({"root": 0}, "root file system"),
        ({"root": errno.EACCES, "root_read_only": False}, "root file system"),
        ({"interfaces": ("lo", "eth0")}, "network"),
        ({"routes": {"169.254.169.254": 0}}, "network"),
        ({"routes": {"169.254.169.254": None}}, "network"),
        ({"host_tcp": 0}, "network"),
        ({"host_unix": 0}, "network"),
        ({"name": 0}, "name resolution"),
    ],
)
def test_what_is_open_is_red_alone(changes: dict[str, Any], wall: str) -> None:
    assert verdicts(**changes) == {wall: "fail"}


@pytest.mark.parametrize(
    ("spec", "changes", "wall"),
    [
        (ROOT, {"uid": 0}, "user"),
        ({**ROOT, "extra_caps": ("CHOWN",)}, {"powers": {"chown": 0}}, "capabilities"),
        ({"network": "bridge"}, {"interfaces": ("lo", "eth0"), "routes": {"192.0.2.1": 0}, "name": 2}, "network"),
        ({"persistent": True}, {"root": errno.EACCES, "root_read_only": False}, "root file system"),
    ],
)
def test_what_was_given_up_on_purpose_is_a_warning(spec: dict[str, Any], changes: dict[str, Any], wall: str) -> None:
    assert verdicts(spec, **changes) == {wall: "warn"}


def test_the_hosts_own_network_is_red_whatever_was_asked_for() -> None:
    assert verdicts({"network": "bridge"}, host_unix=0) == {"network": "fail"}


def test_a_kernel_of_its_own_is_judged_by_what_it_keeps_from_the_host() -> None:
    status = {"CapPrm": "0", "CapEff": "0", "CapBnd": "0", "Seccomp": "0"}
    calls = {"keyctl": 0, "unshare": 0}
    open_to_itself: dict[str, Any] = {"status": status, "calls": calls, "powers": {"mknod": 0}, "root": errno.EACCES}
    assert verdicts(gvisor=True, **open_to_itself) == {"capabilities": "warn"}
    assert set(verdicts(**open_to_itself)) == {"capabilities", "no-new-privileges", "seccomp", "user namespaces"}


def test_every_red_check_says_what_to_do() -> None:
    facts = dataclasses.replace(
        CLOSED, uid=0, status={}, calls={"bpf": 0, "clone": 0}, filter=None, root=0, host_tcp=0, name=0
    )
    checks = judged(facts, ContainerSpec(image="x"))
    assert [check.verdict for check in checks] == ["fail"] * len(WALLS)
    assert all(check.remedy for check in checks)


def test_what_nobody_saw_is_skipped() -> None:
    assert {check.verdict for check in unjudged("no python3")} == {"skipped"}


def test_a_self_check_is_as_serious_as_its_most_serious_check() -> None:
    checks = tuple(Check(name=verdict, verdict=verdict, seen="") for verdict in ("ok", "warn", "skipped"))
    assert (worst(()), worst(checks[:1]), worst(checks)) == ("skipped", "ok", "warn")
    red = Check(name="x", verdict="fail", seen="")
    found = SelfCheck(checks=(*checks, red))
    assert (found.verdict, found.failed, found["x"]) == ("fail", (red,), red)
    with pytest.raises(KeyError):
        _ = found["y"]


def test_an_answer_survives_its_way() -> None:
    assert parsed(json.dumps(dataclasses.asdict(CLOSED))) == CLOSED


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 30_000,
        json.dumps({**dataclasses.asdict(CLOSED), "uid": "\x1b[2J"}),
        json.dumps({**dataclasses.asdict(CLOSED), "uid": float("inf")}),
        json.dumps({**dataclasses.asdict(CLOSED), "status": ["NoNewPrivs"]}),
        json.dumps({**dataclasses.asdict(CLOSED), "calls": {"bpf": "1"}}),
        json.dumps({**dataclasses.asdict(CLOSED), "interfaces": [1]}),
        json.dumps({**dataclasses.asdict(CLOSED), "release": "x" * 100_000}),
    ],
)
def test_an_answer_that_is_none_is_refused_and_quoted_harmlessly(answer: str) -> None:
    with pytest.raises(NoFactsError) as failure:
        parsed(answer)
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) < 1000


@given(st.text())
def test_whatever_a_container_says_fits_on_a_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 8 * 301


def test_what_could_steer_a_terminal_or_its_reader_is_shown() -> None:
    assert printable("\x1b[2J\u202egnp.exe\n") == "\\u001b[2J\\u202egnp.exe\\u000a"
