"""Each built-in runtime does what it promises, in a sandbox with default settings: no network, not root, read-only root."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from pydantic_ai_sandbox import DockerSandbox
from pydantic_ai_sandbox.runtimes import builtin_names

pytestmark = [pytest.mark.docker, pytest.mark.slow]

Open = Callable[[str], AbstractAsyncContextManager[DockerSandbox]]

CLOSED = """
set -eu
test "$(id -u):$(id -g)" = 10001:10001
test "$(id -un)" = sandbox
test "$(ls /sys/class/net)" = lo
test "$(pwd)" = /workspace
! touch /usr/file 2>/dev/null
! touch /opt/file 2>/dev/null
touch "$HOME/file" /workspace/file /tmp/file
test -z "$(find / -xdev -type f -perm /6000 2>/dev/null)"
test ! -e /.sandbox-build
env | cut -d= -f1 | sort | tr '\\n' ' '
"""

VARIABLES = {
    "HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH", "PWD", "PYTHONDONTWRITEBYTECODE", "TERM", "USER",
    # Of the official images.
    "GPG_KEY", "NODE_VERSION", "PYTHON_SHA256", "PYTHON_VERSION", "YARN_VERSION",
    # Of ours.
    "NPM_CONFIG_UPDATE_NOTIFIER", "OMP_NUM_THREADS",
}  # fmt: skip


async def check(sandbox: DockerSandbox, command: str, *, timeout: float = 120) -> str:
    result = await sandbox.run(command, shell=True, timeout=timeout)
    assert result.exit_code == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("name", builtin_names())
async def test_every_runtime_is_closed(sandbox_of: Open, name: str) -> None:
    async with sandbox_of(name) as sandbox:
        variables = (await check(sandbox, CLOSED)).split()
        assert set(variables) - VARIABLES == set()


def test_there_are_five() -> None:
    assert builtin_names() == ("node-minimal", "node-react", "python-datascience", "python-minimal", "python-web")


UNCOMPILED = """
import importlib, sys
from pathlib import Path

for name in sys.argv[1:]:
    importlib.import_module(name)
cached = {name: getattr(module, "__cached__", None) for name, module in sys.modules.items()}
print(*(name for name, path in cached.items() if path and name != "__main__" and not Path(path).exists()))
"""

IMPORTED = {
    "python-minimal": ("asyncio", "email.message", "http.server", "json", "sqlite3", "unittest.mock"),
    "python-web": ("asyncio", "fastapi.testclient", "httpx", "sqlalchemy.orm", "uvicorn"),
    "python-datascience": ("asyncio", "ipykernel.kernelapp", "pandas", "scipy.stats", "seaborn", "sklearn.ensemble"),
}


@pytest.mark.parametrize("name", IMPORTED)
async def test_what_is_imported_was_compiled_when_the_image_was_built(sandbox_of: Open, name: str) -> None:
    async with sandbox_of(name) as sandbox:
        await sandbox.write_text("/tmp/uncompiled.py", UNCOMPILED)
        assert await check(sandbox, f"python /tmp/uncompiled.py {' '.join(IMPORTED[name])}") == "\n"


THREADS = """
import os

import numpy, scipy.linalg
from sklearn.cluster import KMeans

matrix = numpy.random.default_rng(0).random((400, 400))
numpy.linalg.svd(matrix)
scipy.linalg.solve(matrix, matrix)
KMeans(3, n_init=1).fit(matrix)
print(len(os.listdir("/proc/self/task")))
"""


async def test_numerical_code_starts_as_many_threads_as_it_has_processors(sandbox_of: Open) -> None:
    async with sandbox_of("python-datascience") as sandbox:
        await sandbox.write_text("/workspace/threads.py", THREADS)
        assert await check(sandbox, "python threads.py") == "1\n"
        assert int(await check(sandbox, "OMP_NUM_THREADS=3 python threads.py")) > 1


# -- What is in them -----------------------------------------------------------------------------------------------------


async def python_minimal(sandbox: DockerSandbox) -> None:
    program = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    assert set((await check(sandbox, f"python -c '{program}'")).split()) <= {"pip", "setuptools", "wheel"}
    await check(sandbox, "python3 -c 'import sqlite3, ssl, venv, lzma, bz2, zlib, ctypes, json, asyncio'")


FIT = """
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

features, target = load_iris(return_X_y=True, as_frame=True)
parts = train_test_split(features, target, random_state=0)
model = RandomForestClassifier(random_state=0).fit(parts[0], parts[2])
print(model.score(parts[1], parts[3]))
"""

FIGURE = """
import matplotlib.image, matplotlib.pyplot as plt, numpy, pandas, scipy.stats, seaborn

frame = pandas.DataFrame({"x": numpy.linspace(-3, 3, 200)})
frame["y"] = scipy.stats.norm.pdf(frame.x)
seaborn.lineplot(frame, x="x", y="y")
plt.savefig("figure.png")
pixels = matplotlib.image.imread("figure.png").reshape(-1, 4)
print(len(numpy.unique(pixels, axis=0)))
"""


async def python_datascience(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/workspace/fit.py", FIT)
    assert float(await check(sandbox, "python fit.py 2>&1")) > 0.9
    await sandbox.write_text("/workspace/figure.py", FIGURE)
    # Nothing but the number: no warning, about fonts or anything else.
    assert int(await check(sandbox, "python figure.py 2>&1")) > 10
    assert (await sandbox.read_bytes("/workspace/figure.png")).startswith(b"\x89PNG\r\n\x1a\n")
    await check(sandbox, "python -c 'import ipykernel, jupyter_client, matplotlib_inline'; python -m pip check")


APP = """
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class NewNote(BaseModel):
    text: str


engine = create_engine("sqlite:////workspace/notes.db")
Base.metadata.create_all(engine)
app = FastAPI()


@app.post("/notes")
def add(note: NewNote) -> int:
    with Session(engine) as session:
        made = Note(text=note.text)
        session.add(made)
        session.commit()
        return made.id


@app.get("/notes")
def notes() -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(select(Note.text)))
"""

ASK = """
import httpx

with httpx.Client(base_url="http://127.0.0.1:8000", transport=httpx.HTTPTransport(retries=5)) as client:
    client.post("/notes", json={"text": "one"}).raise_for_status()
    assert client.post("/notes", json={}).status_code == 422
    print(client.get("/notes").json())
"""


async def python_web(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/workspace/app.py", APP)
    await sandbox.write_text("/workspace/ask.py", ASK)
    server = await sandbox.start_job(["uvicorn", "app:app"])
    assert await check(sandbox, "python ask.py") == "['one']\n"
    await server.stop()
    await check(sandbox, "python -m pip check")


NODE = """
import assert from "node:assert";
import { test } from "node:test";

test("fetch and friends are there", async () => {
  assert.match(process.version, /^v20\\./);
  assert.equal(await new Response("text").text(), "text");
});
"""


async def node_minimal(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/workspace/some.test.mjs", NODE)
    assert "# pass 1" in await check(sandbox, "node --test --test-reporter tap")
    assert (await check(sandbox, "npm --version")).startswith("10.")
    await check(sandbox, "npm init --yes && npm pkg set scripts.hello='echo said' && npm run hello | grep -x said")


ASK_VITE = """
const get = (path) => fetch(`http://localhost:5173${path}`).then((answer) => answer.status);
for (let tries = 0; tries < 100; tries++) {
  try {
    console.log(await get("/"), await get("/src/main.tsx"), await get("/@vite/client"));
    break;
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
"""


async def node_react(sandbox: DockerSandbox) -> None:
    await check(sandbox, "cp -r /opt/starter/. /workspace && npm run build")
    html = (await sandbox.read_bytes("/workspace/dist/index.html")).decode()
    script = html.partition('src="')[2].partition('"')[0]
    assert (await sandbox.stat(f"/workspace/dist{script}")).size or 0 > 100_000
    server = await sandbox.start_job(["vite", "--port", "5173"])
    await sandbox.write_text("/workspace/ask.mjs", ASK_VITE)
    assert await check(sandbox, "node ask.mjs") == "200 200 200\n"
    await server.stop()
    # TypeScript looks at what is written.
    await check(sandbox, "echo 'export const wrong: number = \"text\";' > src/wrong.ts && ! tsc")
    assert (
        json.loads(await check(sandbox, "node -p 'JSON.stringify(Object.keys(require(\"react\")).length > 10)'"))
        is True
    )


SMOKE: dict[str, Callable[[DockerSandbox], Awaitable[None]]] = {
    "python-minimal": python_minimal,
    "python-datascience": python_datascience,
    "python-web": python_web,
    "node-minimal": node_minimal,
    "node-react": node_react,
}


@pytest.mark.parametrize("name", SMOKE)
async def test_a_runtime_does_what_it_promises(sandbox_of: Open, name: str) -> None:
    async with sandbox_of(name) as sandbox:
        await SMOKE[name](sandbox)
