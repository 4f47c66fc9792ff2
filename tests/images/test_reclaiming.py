"""A loan is taken out of a saved image, and nothing else."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox import ImageBuildError
from pydantic_ai_sandbox.engines.docker.images import reclaiming
from pydantic_ai_sandbox.engines.docker.images.lending import Loan
from pydantic_ai_sandbox.engines.docker.images.naming import LABEL_BUILD
from pydantic_ai_sandbox.engines.docker.images.reclaiming import reclaim, without_loan

LOAN = Loan(
    image="lent:1",
    layers=("sha256:base", "sha256:lent"),
    history=3,
    env=("PATH=/bin", "KEPT=1", "OVERLAID=ours", "LENT=ours"),
    original_env=("PATH=/bin", "KEPT=1", "OVERLAID=its own"),
)

CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "config": {
        "Env": ["PATH=/opt/bin:/bin", "KEPT=1", "OVERLAID=ours", "LENT=ours", "MADE=2"],
        "Labels": {LABEL_BUILD: "x", "mine": "1"},
    },
    "container": "abc",
    "container_config": {"Env": ["LENT=ours"]},
    "history": [{"created_by": word} for word in ("base", "ENV of base", "lent", "made")],
    "rootfs": {"type": "layers", "diff_ids": ["sha256:base", "sha256:lent", "sha256:made"]},
}


def layer(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return buffer.getvalue()


def save(path: Path, *layers: bytes, config: dict[str, Any] = CONFIG) -> Path:
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": [f"l{number}" for number in range(len(layers))]}]
    members = {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    members |= {f"l{number}": content for number, content in enumerate(layers)}
    with tarfile.open(path, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def loaded(path: Path) -> tuple[dict[str, Any], list[bytes], list[str]]:
    with tarfile.open(path) as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        (entry,) = json.loads(content("manifest.json"))
        return json.loads(content(entry["Config"])), [content(name) for name in entry["Layers"]], entry["RepoTags"]


def test_its_layer_history_variables_and_label_go_and_the_rest_stays(tmp_path: Path) -> None:
    base, lent, made = layer(a="base"), layer(b="lent"), layer(c="made")
    without_loan(save(tmp_path / "in", base, lent, made), tmp_path / "out", (LOAN,), "name:1", ())
    config, layers, tags = loaded(tmp_path / "out")
    assert layers == [base, made]
    assert tags == ["name:1"]
    assert config["rootfs"]["diff_ids"] == ["sha256:base", "sha256:made"]
    assert [entry["created_by"] for entry in config["history"]] == ["base", "ENV of base", "made"]
    assert config["config"] == {
        "Env": ["PATH=/opt/bin:/bin", "KEPT=1", "OVERLAID=its own", "MADE=2"],
        "Labels": {"mine": "1"},
    }
    assert set(config) == {"architecture", "config", "history", "rootfs"}


def test_an_image_that_was_not_built_on_the_loan_stays_as_it_is(tmp_path: Path) -> None:
    config = {**CONFIG, "rootfs": {"type": "layers", "diff_ids": ["sha256:other"]}}
    without_loan(save(tmp_path / "in", layer(a="x"), config=config), tmp_path / "out", (LOAN,), "name:1", ())
    assert loaded(tmp_path / "out")[0] == config


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_secret_in_a_layer_of_its_own_is_found_and_not_repeated(tmp_path: Path, pack: Any) -> None:
    made = pack(layer(one="harmless", two="url = http://me:hunter22@host/"))
    saved = save(tmp_path / "in", layer(a="base hunter22"), layer(b="lent hunter22"), made)
    with pytest.raises(ImageBuildError, match="into /two,") as caught:
        without_loan(saved, tmp_path / "out", (LOAN,), "name:1", {"hunter22"})
    assert "hunter22" not in str(caught.value)


def test_a_secret_across_two_pieces_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaiming, "_PIECE", 700)
    for padding in range(160, 220):
        saved = save(tmp_path / "in", layer(a=""), layer(b=""), layer(c="." * padding + "hunter22"))
        with pytest.raises(ImageBuildError, match="password or a token"):
            without_loan(saved, tmp_path / "out", (LOAN,), "name:1", {"hunter22"})


def test_a_layer_that_changes_what_was_lent_is_refused(tmp_path: Path) -> None:
    made = layer(**{".sandbox-build/npmrc": "changed"})
    with pytest.raises(ImageBuildError, match="only lent"):
        without_loan(save(tmp_path / "in", layer(a=""), layer(b=""), made), tmp_path / "out", (LOAN,), "name:1", ())


class Daemon:
    """A daemon that saves an image as bytes that no daemon saves."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def get_image(self, image: str, chunk_size: int) -> Any:
        return iter([self.content])


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10_240])
def test_an_archive_of_another_form_is_an_error_that_says_so(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ImageBuildError, match="in a form that is not known here"):
        reclaim(Daemon(content), "image", (), "name:1", ())
    assert not list((tmp_path / "pydantic-ai-sandbox").iterdir())


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(reclaiming, "without_loan", full)
    with pytest.raises(ImageBuildError, match=r"No space left on device.*two copies of it in "):
        reclaim(Daemon(b"x"), "image", (), "name:1", ())
