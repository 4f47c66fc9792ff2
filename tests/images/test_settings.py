"""What a host has set up for package indexes is read from where such things are, and secrets among it are known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydantic_ai_sandbox.engines.docker.images import settings
from pydantic_ai_sandbox.engines.docker.images.settings import host_settings


@pytest.fixture(autouse=True)
def plain_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host without any settings, and with an empty home."""
    for name in os.environ:
        if name.upper().startswith(("PIP_", "NPM_", "SSL_", "REQUESTS_", "CURL_", "NODE_")) or name.upper().endswith(
            "_PROXY"
        ):
            monkeypatch.delenv(name)
    for name in ("_LOCAL_AUTHORITIES", "_PIP_FILES", "_NPM_FILES"):
        monkeypatch.setattr(settings, name, ())
    monkeypatch.setattr(settings.sys, "prefix", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_plain_host_lends_nothing() -> None:
    assert not host_settings()


def test_authorities_are_taken_from_where_the_host_says(monkeypatch: pytest.MonkeyPatch, plain_host: Path) -> None:
    (plain_host / "own.pem").write_text("authorities")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(plain_host / "own.pem"))
    found = host_settings()
    assert found.files["authorities.pem"] == b"authorities"
    path = "/.sandbox-build/authorities.pem"
    for name in ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "npm_config_cafile"):
        assert found.env[name] == path
    assert path in found.files["apt.conf"].decode()


def test_local_authorities_make_the_bundle_matter(monkeypatch: pytest.MonkeyPatch, plain_host: Path) -> None:
    (plain_host / "bundle").write_text("all of them")
    places = ((str(plain_host / "local"), str(plain_host / "bundle")),)
    monkeypatch.setattr(settings, "_LOCAL_AUTHORITIES", places)
    assert not host_settings()
    (plain_host / "local").mkdir()
    assert not host_settings()
    (plain_host / "local" / "company.crt").write_text("x")
    assert host_settings().files["authorities.pem"] == b"all of them"


def test_pip_is_told_addresses_but_no_directories(monkeypatch: pytest.MonkeyPatch, plain_host: Path) -> None:
    (plain_host / "pip.conf").write_text(
        "[global]\nindex-url = https://user:hunter22@index.example/simple\n"
        "extra_index_url =\n  file:///srv/wheels\n  https://other.example/simple\n[install]\ntrusted-host = index.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(plain_host / "pip.conf"))
    monkeypatch.setenv("PIP_TRUSTED_HOST", "wins.example")
    found = host_settings()
    assert found.env == {
        "PIP_INDEX_URL": "https://user:hunter22@index.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://other.example/simple",
        "PIP_TRUSTED_HOST": "wins.example",
    }
    assert found.secrets == {"hunter22"}
    assert "hunter22" not in repr(found.secrets.__class__) + repr(settings.BuildSettings(secrets=found.secrets))


def test_npm_is_told_registries_and_tokens_and_nothing_else(monkeypatch: pytest.MonkeyPatch, plain_host: Path) -> None:
    (plain_host / "npmrc").write_text(
        "registry=https://registry.example/\n//registry.example/:_authToken=${TOKEN}\n"
        "@mine:registry = https://mine.example/\ncache=/var/cache/npm\nprefix=/opt\n"
    )
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(plain_host / "npmrc"))
    monkeypatch.setenv("TOKEN", "tok-123456")
    found = host_settings()
    assert found.files["npmrc"].decode().splitlines() == [
        "registry=https://registry.example/",
        "//registry.example/:_authToken=tok-123456",
        "@mine:registry = https://mine.example/",
    ]
    assert found.env == {"npm_config_userconfig": "/.sandbox-build/npmrc"}
    assert found.secrets == {"tok-123456"}


def test_proxies_are_given_in_both_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:letmein9@proxy.example:3128")
    found = host_settings()
    assert found.env["https_proxy"] == found.env["HTTPS_PROXY"] == "http://me:letmein9@proxy.example:3128"
    assert found.secrets == {"letmein9"}
    assert not found.needs_host_network


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_an_address_on_this_machine_needs_its_network(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{host}:3141/simple")
    assert host_settings().needs_host_network


def test_a_debian_without_sources_is_given_some() -> None:
    found = host_settings(mirror="http://mirror.example/debian", suite="trixie")
    assert found.files["sources.list"] == b"deb http://mirror.example/debian trixie main\n"
    assert b'Dir::Etc::SourceList "/.sandbox-build/sources.list"' in found.files["apt.conf"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no section", b"[global\n"])
def test_a_broken_configuration_of_another_tool_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, plain_host: Path, content: bytes
) -> None:
    (plain_host / "pip.conf").write_bytes(content)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(plain_host / "pip.conf"))
    assert not host_settings()
