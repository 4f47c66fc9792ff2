"""No layer of a built-in runtime's image knows how this host reaches its package indexes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import docker
import pytest

from pydantic_ai_sandbox.engines.docker.images import ensure_image
from pydantic_ai_sandbox.engines.docker.images.bootstrap import SUITE, debian_mirror
from pydantic_ai_sandbox.engines.docker.images.settings import DIRECTORY, host_settings
from pydantic_ai_sandbox.runtimes import builtin, builtin_names
from tests.images.saved import config, found_in, save

pytestmark = [pytest.mark.docker, pytest.mark.slow]

USUAL = Path("/usr/share/ca-certificates")
"""Where Debian keeps the authorities that everybody trusts."""

APT = Path("/usr/lib/dpkg/methods/apt/setup")
"""A file of Debian's that names the archive which it suggests to everybody."""


def needles() -> list[bytes]:
    """What of this host's settings can be told apart from what is in everybody's images."""
    settings = host_settings(mirror=debian_mirror(), suite=SUITE)
    values = [*settings.env.values(), *settings.secrets, DIRECTORY.lstrip("/")]
    text = b"\n".join(settings.files.values()).decode(errors="replace")
    addresses = [urlsplit(word) for word in re.findall(r"\w+://[^\s\"';]+", "\n".join([*values, text]))]
    traces = {trace for address in addresses for trace in traces_of(address)}
    return [value.encode() for value in {*values, *traces} if len(value) > 3] + own_authorities(text)


def traces_of(address: SplitResult) -> set[str]:
    """What tells that an address was used; of one that is in every Debian, what apt makes of it."""
    lists = f"{address.netloc}{address.path}".strip("/").replace("/", "_")
    suggested = APT.read_text() if APT.exists() else ""
    return {f"{lists}_dists", f"deb {address.geturl()}"} | (set() if address.netloc in suggested else {address.netloc})


def own_authorities(bundle: str) -> list[bytes]:
    """One line of each certificate that this host trusts and Debian does not."""
    usual = "".join(path.read_text(errors="replace") for path in USUAL.rglob("*.crt"))
    bodies = re.findall(r"-----BEGIN CERTIFICATE-----\n(.+?)\n-----END", bundle, re.DOTALL)
    # The middle: serial numbers, names and keys, which no other certificate shares.
    lines = [body.splitlines()[len(body.splitlines()) // 2] for body in bodies]
    return [line.encode() for line in lines if line not in usual]


@pytest.mark.parametrize("name", builtin_names())
def test_nothing_of_this_hosts_settings_is_in_the_image(
    docker_api: docker.APIClient, name: str, tmp_path: Path
) -> None:
    image = save(docker_api, ensure_image(docker_api, builtin(name)), tmp_path)
    wanted = needles()
    assert DIRECTORY.lstrip("/").encode() in wanted
    assert found_in(image, wanted) == set()
    assert not [entry for entry in config(image)["config"]["Env"] if DIRECTORY in entry]
