"""ICMP echo ("ping"), as far as the kernel lets this process send it.

An unprivileged ICMP socket is tried first (`net.ipv4.ping_group_range` says who may have one), then
a raw one (CAP_NET_RAW).  A reply counts when it carries what was sent, random bytes included: a raw
socket hears the replies to others as well.

The deadline of the whole probe would tell nothing of what was lost, so that it stops waiting for
replies at 9/10 of it.  Runs on the checker's event loop; keeps nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from healthmon.probes.kind import FAILED, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.names import host_problem
from healthmon.probes.net.resolver import ResolveError
from healthmon.probes.tools import Tools

WAIT_SHARE = 0.9
TOKEN_BYTES = 16

_HEADER = struct.Struct("!BBHHH")
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


class IcmpOptions(ProbeOptions, frozen=True, kw_only=True):
    count: Annotated[
        int, msgspec.Meta(ge=1, le=10, description="Echo requests sent in one probe.")
    ] = 1
    gap_ms: Annotated[
        int, msgspec.Meta(ge=10, le=1000, description="From one request to the next.")
    ] = 200
    max_loss_percent: Annotated[
        int, msgspec.Meta(ge=0, le=99, description="Failed when more than this share is lost.")
    ] = 0
    size_bytes: Annotated[
        int, msgspec.Meta(ge=TOKEN_BYTES, le=1400, description="Bytes carried in each request.")
    ] = 56
    ip_version: Annotated[
        Literal["any", "4", "6"], msgspec.Meta(description="Which of a name's addresses is used.")
    ] = "any"


class Unpermitted(Exception):
    """This process may send no ICMP; the text says what to permit."""


async def probe(request: Request, tools: Tools) -> Result:
    options = request.options
    assert isinstance(options, IcmpOptions)
    clock = tools.monotonic
    began = clock()
    family = 0 if options.ip_version == "any" else int(options.ip_version)
    host = request.address.strip()
    try:
        known = tools.resolver.known(host, family=family)
        addresses = known or await tools.resolver.resolve(host, family=family)
    except ResolveError as error:
        return Result(outcome=FAILED, error=str(error))
    except asyncio.CancelledError as error:
        error.add_note(f"resolving {host}")
        raise
    dns_ms = -1.0 if known else (clock() - began) * 1000
    problems = [tools.policy.problem(address) for address in addresses]
    if all(problems):
        return Result(outcome=FAILED, error=problems[0], dns_ms=dns_ms)
    address = addresses[problems.index("")]
    result = Result(address=address, dns_ms=dns_ms)
    left_s = max(request.timeout_s * WAIT_SHARE - (clock() - began), 0.01)
    try:
        times = await _ping(address, options, left_s, clock)
    except Unpermitted as error:
        result.outcome, result.error = FAILED, str(error)
        return result
    except OSError as error:
        result.outcome = FAILED
        result.error = f"{address} cannot be reached: {error.strerror or error}"
        return result
    lost = options.count - len(times)
    if times:
        result.first_byte_ms = result.total_ms = sum(times) / len(times)
    else:
        result.total_ms = (clock() - began) * 1000
    if lost * 100 > options.max_loss_percent * options.count:
        result.outcome = FAILED
        result.error = (
            f"{address} did not answer {lost} of {options.count} echo requests"
            if times or options.count > 1
            else f"{address} did not answer an echo request"
        )
    return result


async def _ping(
    address: str, options: IcmpOptions, wait_s: float, clock: Callable[[], float]
) -> list[float]:
    """The round trips in milliseconds, of those that came back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock, raw = _open(family)
    loop = asyncio.get_running_loop()
    token = secrets.token_bytes(TOKEN_BYTES)
    identity = secrets.randbelow(65_536)
    padding = bytes(options.size_bytes - TOKEN_BYTES)
    sent: dict[int, float] = {}
    times: list[float] = []
    done: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        try:
            packet = sock.recv(2048)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if not done.done():
                done.set_exception(error)
            return
        sequence = _reply(packet, family, raw, identity, token)
        began = sent.pop(sequence, None) if sequence is not None else None
        if began is not None:
            times.append((clock() - began) * 1000)
            if len(times) == options.count and not done.done():
                done.set_result(None)

    try:
        sock.connect((address, 0))
        loop.add_reader(sock.fileno(), readable)
        async with asyncio.timeout(wait_s):
            for sequence in range(options.count):
                if sequence:
                    await asyncio.wait((done,), timeout=options.gap_ms / 1000)
                    if done.done():
                        break
                sent[sequence] = clock()
                sock.send(_request(family, identity, sequence, token + padding))
            await done
    except TimeoutError:
        pass  # what has not come back by now is lost
    except asyncio.CancelledError as error:
        error.add_note(f"waiting for {address} to answer an echo request")
        raise
    finally:
        loop.remove_reader(sock.fileno())
        sock.close()
        if done.done() and not done.cancelled():
            done.exception()
    return times


def _open(family: socket.AddressFamily) -> tuple[socket.socket, bool]:
    """A socket for echo requests, and whether it is a raw one.  Raises Unpermitted."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, _PROTOCOL[family])
        except PermissionError:
            continue
        return sock, kind == socket.SOCK_RAW
    raise Unpermitted(
        "this process may not send ICMP: let its group in"
        f" (sysctl net.ipv4.ping_group_range='{os.getegid()} {os.getegid()}')"
        " or give it CAP_NET_RAW"
    )


def _request(family: int, identity: int, sequence: int, payload: bytes) -> bytes:
    kind = _ECHO[socket.AddressFamily(family)][0]
    packet = _HEADER.pack(kind, 0, 0, identity, sequence) + payload
    # The kernel fills in the checksum of ICMPv6, which covers addresses too.
    checksum = _checksum(packet) if family == socket.AF_INET else 0
    return _HEADER.pack(kind, 0, checksum, identity, sequence) + payload


def _reply(packet: bytes, family: int, raw: bool, identity: int, token: bytes) -> int | None:
    """The sequence number of a reply to us; None for whatever else was heard."""
    if raw and family == socket.AF_INET:
        if not packet:
            return None
        packet = packet[(packet[0] & 0x0F) * 4 :]  # the IP header
    if len(packet) < _HEADER.size + len(token):
        return None
    kind, code, _, who, sequence = _HEADER.unpack_from(packet)
    if kind != _ECHO[socket.AddressFamily(family)][1] or code:
        return None
    # The kernel gives unprivileged sockets an identity of its own.
    if raw and who != identity:
        return None
    if packet[_HEADER.size : _HEADER.size + len(token)] != token:
        return None
    return int(sequence)


def _checksum(packet: bytes) -> int:
    if len(packet) % 2:
        packet += b"\0"
    words: tuple[int, ...] = struct.unpack(f"!{len(packet) // 2}H", packet)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return 0xFFFF - (total + (total >> 16) & 0xFFFF)


KIND = ProbeKind(
    name="icmp",
    label="Ping (ICMP)",
    description="Sends echo requests and counts what comes back.",
    Options=IcmpOptions,
    address_label="Host",
    address_example="router.example.org",
    address_problem=lambda address: host_problem(address.strip()),
    host=lambda address: address.strip().lower(),
    probe=probe,
)
