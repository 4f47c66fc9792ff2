"""The wheel holds all that an installed package needs, made from a source distribution that holds all the wheel needs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

ELF_MACHINES = {"amd64": 62, "arm64": 183}
PT_INTERP = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_fits_every_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "pydantic_ai_sandbox/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pydantic_ai_sandbox"}
    assert not [name for name in names if name.endswith((".pyc", ".go", "stamp"))]
    sources = {f"pydantic_ai_sandbox/{path.relative_to(ROOT / 'pydantic_ai_sandbox')}" for path in package_sources()}
    assert sources <= set(names)


def package_sources() -> list[Path]:
    return list((ROOT / "pydantic_ai_sandbox").rglob("*.py"))


@pytest.mark.parametrize("arch", ELF_MACHINES)
def test_it_carries_a_static_executable_runner(wheel: Path, arch: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry = archive.getinfo(f"pydantic_ai_sandbox/_runner/linux-{arch}")
        binary = archive.read(entry)
    assert entry.external_attr >> 16 & 0o111 == 0o111
    assert binary[:4] == b"\x7fELF"
    assert int.from_bytes(binary[18:20], "little") == ELF_MACHINES[arch]
    assert PT_INTERP not in program_header_types(binary)


def program_header_types(binary: bytes) -> list[int]:
    offset = int.from_bytes(binary[32:40], "little")
    size = int.from_bytes(binary[54:56], "little")
    count = int.from_bytes(binary[56:58], "little")
    return [int.from_bytes(binary[offset + size * i : offset + size * i + 4], "little") for i in range(count)]


def test_its_runtimes_are_found(installed: Path) -> None:
    probe = """
from pydantic_ai_sandbox.runtimes import base_recipe, builtin, builtin_names, runner_binary, runner_version
import pydantic_ai_sandbox
print(pydantic_ai_sandbox.__path__[0])
print(*builtin_names())
assert all((builtin(name).dockerfile / "Dockerfile").is_file() for name in builtin_names())
assert (base_recipe() / "bootstrap.sh").is_file()
print(runner_binary("amd64"), runner_version())
"""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, "-c", probe], env=environment, cwd=installed, capture_output=True, text=True, check=True
    )
    place, names, runner = result.stdout.splitlines()
    assert place == str(installed / "pydantic_ai_sandbox")
    assert "python-minimal" in names.split()
    assert runner.startswith(place)


def test_it_holds_every_file_that_a_runtime_is_built_from(wheel: Path) -> None:
    runtimes = ROOT / "runtimes"
    folders = [dockerfile.parent for dockerfile in runtimes.glob("*/Dockerfile")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {"Dockerfile", ".dockerignore", "requirements.txt", "package-lock.json"} <= {path.name for path in files}
    with zipfile.ZipFile(wheel) as archive:
        for path in files:
            packed = archive.read(f"pydantic_ai_sandbox/runtimes/_builtin/{path.relative_to(runtimes).as_posix()}")
            assert packed == path.read_bytes(), path


def test_two_builds_of_the_runner_are_equal(wheel: Path, hook: ModuleType, tmp_path: Path) -> None:
    sources = tmp_path / "elsewhere" / "runtimes" / "runner"
    sources.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", str(ROOT / "runtimes/runner"), str(sources)], check=True)
    (tmp_path / "elsewhere" / "pydantic_ai_sandbox").mkdir()
    hook.build_runner(tmp_path / "elsewhere", say=lambda _: None)
    with zipfile.ZipFile(wheel) as archive:
        for arch in ELF_MACHINES:
            name = f"pydantic_ai_sandbox/_runner/linux-{arch}"
            assert archive.read(name) == (tmp_path / "elsewhere" / name).read_bytes()


def test_an_unchanged_runner_is_not_built_again(hook: ModuleType) -> None:
    said: list[str] = []
    hook.build_runner(ROOT, say=said.append)
    said.clear()
    hook.build_runner(ROOT, say=said.append)
    assert said == []


def test_a_source_tree_without_the_runner_is_refused(hook: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(hook.RunnerBuildError, match="no Go module"):
        hook.build_runner(tmp_path)
