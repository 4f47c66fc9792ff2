"""What the sandbox was, as it is seen from inside, and what is left of it, as Docker says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic_ai_sandbox import DockerEngine, DockerSandbox

PROBE = """
import errno, json, os, platform, socket

def refusal(call):
    try:
        call()
    except OSError as error:
        return os.strerror(error.errno)
    return "allowed!"

with open("/proc/self/status") as file:
    status = dict(line.rstrip().split(":\\t", 1) for line in file)
print(json.dumps({
    "python": platform.python_version(),
    "system": platform.freedesktop_os_release()["PRETTY_NAME"],
    "uid": os.getuid(),
    "capabilities": int(status["CapEff"], 16).bit_count(),
    "write": refusal(lambda: open("/usr/probe", "w")),
    "connect": refusal(lambda: socket.create_connection(("192.0.2.1", 53), timeout=2)),
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
}))
"""
"""Asked inside the sandbox, by a program that runs there."""

TRANSPORTS = {"socket": "the runner's own unix socket", "exec": "one `docker exec` stream"}


async def describe(engine: DockerEngine, sandbox: DockerSandbox) -> dict[str, str]:
    """The sandbox in a few words each."""
    info = sandbox.info
    assert info is not None
    probe: dict[str, Any] = json.loads((await sandbox.run(["python", "-c", PROBE])).stdout)
    usage = await sandbox.usage()
    version, container = await asyncio.to_thread(_ask_docker, engine, info.id)
    limits = info.spec.limits
    sizes = {
        name: getattr(limits, name).human_readable(separator=" ") for name in ("memory", "workspace", "tmp", "output")
    }
    return {
        "Container": f"{info.name}, up for {usage.uptime:.1f} s",
        "Image": f"{info.spec.image}: Python {probe['python']} on {probe['system']}",
        "User": f"uid {probe['uid']} with {probe['capabilities']} capabilities; writing to /usr: {probe['write']}",
        "Network": f"{info.spec.network}; interfaces: {', '.join(probe['interfaces'])}; "
        f"connecting to 192.0.2.1: {probe['connect']}",
        "Limits": f"memory {sizes['memory']}, {limits.cpus:g} CPU, {limits.pids} processes, "
        f"workspace {sizes['workspace']}, /tmp {sizes['tmp']}, output of a command {sizes['output']}",
        "Used": f"{usage.cpu:.1f} s of CPU; {usage.memory / 2**20:.0f} MiB now",
        "Transport": TRANSPORTS.get(sandbox.transport or "", "none"),
        "Engine": f"Docker {version['Version']}, OCI runtime {container['HostConfig']['Runtime']}",
    }


def _ask_docker(engine: DockerEngine, container: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return engine.api().version(), engine.api().inspect_container(container)


def remains(engine: DockerEngine, sandbox: DockerSandbox) -> list[str]:
    """Containers that Docker still knows of this sandbox."""
    if sandbox.ref is None:
        return []
    found: list[dict[str, Any]] = engine.api().containers(all=True, filters={"id": sandbox.ref.id})
    return [container["Names"][0].lstrip("/") for container in found]
