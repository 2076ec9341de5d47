"""Whom the connectivity gate asks whether this machine has a network.

Those that the operator named; without any, the nameservers of this machine that are not on it, and
without such its default gateway.  Asked on the checker's event loop; the files they are read from
are small and local.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from healthmon.checker.routes import gateways
from healthmon.probes.net.names import literal
from healthmon.probes.net.question import ask

TIMEOUT_S = 2.0
TRY_S = 0.6
# Where a witness is named without a port: a refusal is an answer, too.
PORTS = (443, 53, 80)
MOST_NAMESERVERS = 3
MAX_BYTES = 64 * 1024
# The second has what the first hides behind a resolver of this machine's own.
RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_ANSWERS = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})


class Resolver(Protocol):
    async def resolve(self, host: str, *, family: int = 0) -> list[str]: ...


class Witness(Protocol):
    @property
    def name(self) -> str: ...

    async def answers(self, resolver: Resolver) -> bool:
        """Whether anything comes back that only a network can bring.  Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A host that is knocked at; a refusal is an answer."""

    host: str
    ports: tuple[int, ...] = PORTS

    @property
    def name(self) -> str:
        return self.host

    async def answers(self, resolver: Resolver) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                addresses = await resolver.resolve(self.host)
                tries = [_knock(address, port) for address in addresses[:2] for port in self.ports]
                return any(await asyncio.gather(*tries))
        except Exception:
            return False


@dataclass(frozen=True, slots=True)
class Nameserver:
    """One that is asked for the root of all names.

    Where it says itself that it has failed, its own way out is gone, and so is ours.
    """

    address: str
    port: int = 53

    @property
    def name(self) -> str:
        return f"the nameserver {self.address}"

    async def answers(self, resolver: Resolver) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await ask(".", "NS", [self.address], port=self.port, try_s=TRY_S)
        except Exception:
            return False
        return reply.rcode != "SERVFAIL"


def named(text: str) -> Place:
    """`host`, `host:port`, an IPv6 address, or one in brackets with a port."""
    host, _, port = text.strip().rpartition(":")
    if host and port.isdecimal() and (":" not in host or host.startswith("[")):
        return Place(host.strip("[]"), (int(port),))
    return Place(text.strip().strip("[]"))


def default_witnesses(
    resolv_confs: Iterable[Path] = RESOLV_CONFS, routes: Path | None = None
) -> list[Witness]:
    """Those that this machine's own settings name."""
    for file in resolv_confs:
        servers = nameservers(file)
        if servers:
            return [Nameserver(address) for address in servers[:MOST_NAMESERVERS]]
    found = gateways() if routes is None else gateways(routes)
    return [Place(address) for address in dict.fromkeys(found)]


def nameservers(file: Path) -> list[str]:
    """The nameservers of a resolv.conf that are not on this machine."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return []
    words = (line.split() for line in text.splitlines())
    named = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return [one for one in named if literal(one) is not None and not is_loopback(one)]


async def who_answers(witnesses: Sequence[Witness], resolver: Resolver) -> str:
    """The name of the first that answers; "" when none does."""

    async def asked(one: Witness) -> str:
        return one.name if await one.answers(resolver) else ""

    answers = [asyncio.ensure_future(asked(one)) for one in witnesses]
    try:
        for answer in asyncio.as_completed(answers):
            if name := await answer:
                return name
    finally:
        for left in answers:
            left.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
    return ""


@lru_cache(maxsize=4096)
def is_loopback(host: str) -> bool:
    """Whether this names this machine itself; its network says nothing of the world's."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def is_beyond(host: str) -> bool:
    """Whether a network is needed to get there."""
    return bool(host) and not is_loopback(host)


@lru_cache(maxsize=4096)
def is_near(host: str) -> bool:
    """Whether this is an address that is reached without a way to the world."""
    address = _address(host)
    return address is not None and (address.is_private or address.is_link_local)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


async def _knock(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(knocking, (address, port))
        except TimeoutError:
            return False
        except OSError as error:
            return error.errno in _ANSWERS
        return True
