"""What this host has set up to reach package indexes, for builds to use: certificates, addresses, proxies, credentials."""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ("DIRECTORY", "BuildSettings", "host_settings")

DIRECTORY = "/.sandbox-build"
"""Where builds find the files, and nothing else does."""

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
"""Variables by which a host names a bundle of authorities, the most general first."""

_LOCAL_AUTHORITIES = (
    ("/usr/local/share/ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    ("/etc/pki/ca-trust/source/anchors", "/etc/pki/tls/certs/ca-bundle.crt"),
)
"""Where a host keeps the authorities that it trusts besides the usual ones, and the bundle that has them all."""

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "timeout", "retries")
_PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")

_NPM_FILES = ("/usr/etc/npmrc", "/usr/local/etc/npmrc", "/etc/npmrc", "~/.npmrc")
_NPM_LINE = re.compile(r"^(registry|strict-ssl|always-auth|_auth\w*|@[\w.-]+:registry|//\S+:\S+)\s*=\s*(?P<value>.+)$")
_NPM_SECRET = re.compile(r"(_auth\w*|_password)\s*=")
_NPM_VARIABLE = re.compile(r"\$\{(\w+)\}")

_SHORTEST_SECRET = 6
"""Characters: shorter ones turn up in any image by chance."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Files in `DIRECTORY`, variables, and what of it must not be seen afterwards."""

    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: frozenset[str] = field(default=frozenset[str](), repr=False)
    """Passwords and tokens."""
    needs_host_network: bool = False
    """Whether an address in them leads to this machine itself, which a build reaches only through its network."""

    def __bool__(self) -> bool:
        return bool(self.files or self.env)


def host_settings(*, mirror: str | None = None, suite: str = "") -> BuildSettings:
    """Read this host's settings; what is usual everywhere is none.

    Args:
        mirror: Debian archive for a base that has none of its own.
        suite: Debian release of that base.
    """
    files: dict[str, bytes] = {}
    env: dict[str, str] = {}
    _add_authorities(files, env)
    _add_pip(env)
    _add_npm(files, env)
    _add_proxies(env)
    if mirror is not None:
        _add_apt(files, env, mirror, suite)
    addresses = list(_addresses([*env.values(), *(content.decode(errors="replace") for content in files.values())]))
    return BuildSettings(
        files=files,
        env=env,
        secrets=frozenset(_secrets(addresses, files.get("npmrc", b"").decode(errors="replace"))),
        needs_host_network=any(_is_this_machine(address.hostname or "") for address in addresses),
    )


def _add_authorities(files: dict[str, bytes], env: dict[str, str]) -> None:
    bundle = _bundle()
    if bundle is None:
        return
    files["authorities.pem"] = bundle
    path = f"{DIRECTORY}/authorities.pem"
    env.update(dict.fromkeys([*_BUNDLES, "GIT_SSL_CAINFO", "npm_config_cafile"], path))
    files["apt.conf"] = f'Acquire::https::CaInfo "{path}";\n'.encode()
    env["APT_CONFIG"] = f"{DIRECTORY}/apt.conf"


def _bundle() -> bytes | None:
    """The host's authorities, if it has any of its own."""
    named = (os.environ.get(name) for name in _BUNDLES)
    local = (bundle for directory, bundle in _LOCAL_AUTHORITIES if any(_files_below(directory)))
    for path in (*named, *local):
        content = _read(path) if path else None
        if content:
            return content
    return None


def _files_below(directory: str) -> Iterator[Path]:
    return (path for path in Path(directory).rglob("*") if path.is_file())


def _add_pip(env: dict[str, str]) -> None:
    settings: dict[str, str] = {}
    own = (os.environ.get("PIP_CONFIG_FILE", ""), str(Path(sys.prefix, "pip.conf")))
    for path in (*_PIP_FILES, *own):
        settings |= _pip_file(path)
    for option in _PIP_OPTIONS:
        name = f"PIP_{option.upper().replace('-', '_')}"
        value = os.environ.get(name, settings.get(option, ""))
        # Directories of this machine are not there during a build.
        words = [word for word in value.split() if not word.startswith(("file:", "/"))]
        if words:
            env[name] = " ".join(words)


def _pip_file(path: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string((_read(path) or b"").decode())
    except (configparser.Error, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {option.replace("_", "-"): value for option, value in parser.items(section)}
    return found


def _add_npm(files: dict[str, bytes], env: dict[str, str]) -> None:
    lines: list[str] = []
    for path in (*_NPM_FILES, os.environ.get("NPM_CONFIG_USERCONFIG", "")):
        content = (_read(path) or b"").decode(errors="replace")
        lines += [line.strip() for line in content.splitlines() if _NPM_LINE.match(line.strip())]
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if registry := os.environ.get(name):
            lines.append(f"registry={registry}")
    if lines:
        filled_in = (_NPM_VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), line) for line in lines)
        files["npmrc"] = ("\n".join(filled_in) + "\n").encode()
        env["npm_config_userconfig"] = f"{DIRECTORY}/npmrc"


def _add_proxies(env: dict[str, str]) -> None:
    for name in _PROXIES:
        if value := os.environ.get(name) or os.environ.get(name.upper()):
            env[name] = env[name.upper()] = value


def _add_apt(files: dict[str, bytes], env: dict[str, str], mirror: str, suite: str) -> None:
    files["sources.list"] = f"deb {mirror} {suite} main\n".encode()
    files["apt.conf"] = files.get("apt.conf", b"") + f'Dir::Etc::SourceList "{DIRECTORY}/sources.list";\n'.encode()
    env["APT_CONFIG"] = f"{DIRECTORY}/apt.conf"


def _addresses(texts: Iterable[str]) -> Iterator[SplitResult]:
    for text in texts:
        for word in re.findall(r"\w+://[^\s\"';]+", text):
            try:
                yield urlsplit(word)
            except ValueError:
                continue


def _secrets(addresses: Iterable[SplitResult], npmrc: str) -> Iterator[str]:
    for address in addresses:
        for secret in (address.password, address.username if address.password is None else None):
            if secret:
                yield from _long_enough(secret, unquote(secret))
    for line in npmrc.splitlines():
        if _NPM_SECRET.search(line):
            yield from _long_enough(line.partition("=")[2].strip().strip("\"'"))


def _long_enough(*secrets: str) -> Iterator[str]:
    return (secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)


def _is_this_machine(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _read(path: str) -> bytes | None:
    try:
        return Path(path).expanduser().read_bytes() if path else None
    except (OSError, RuntimeError):
        return None
