"""Connecting to a target: its names resolved, each address judged, then connected to by number.

The address that the policy has judged is the very one given to the kernel, so that a name that
changes between the check and the connection changes nothing.  Addresses are tried in the answer's
order; while others are left, one that does not answer is given CONNECT_SLICE_S.

The total deadline is the caller's (`asyncio.timeout`).  Whatever ends `dial`, cancellation at any
await included, no socket stays open; what it was doing then is a note on the CancelledError, which
`deadline_text` reads.  Runs on the caller's event loop; no locks.  Why connections are made by hand
and not by the loop: see `transport`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from control.outbound.policy import AddressPolicy
from healthmon.probes.net.resolver import ResolveError, Resolver
from healthmon.probes.net.tls import handshake_text
from healthmon.probes.net.transport import TlsWire, Wire

CONNECT_SLICE_S = 3.0

_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_P = TypeVar("_P", bound=asyncio.Protocol)


class DialTools(Protocol):
    """The part of `Tools` that connecting needs."""

    @property
    def resolver(self) -> Resolver: ...
    @property
    def policy(self) -> AddressPolicy: ...
    @property
    def monotonic(self) -> Callable[[], float]: ...


class DialError(Exception):
    """No connection.  `phase` is address, dns, connect or tls; `text` one sentence.

    The times of the phases that did happen are there too, as in `Dialled`; `tls_code` is OpenSSL's
    number of what is wrong with the certificate, 0 when that is not it.
    """

    def __init__(
        self,
        phase: str,
        text: str,
        *,
        address: str = "",
        dns_ms: float = -1.0,
        connect_ms: float = -1.0,
        tls_ms: float = -1.0,
        tls_code: int = 0,
    ) -> None:
        super().__init__(text)
        self.phase = phase
        self.text = text
        self.address = address
        self.dns_ms = dns_ms
        self.connect_ms = connect_ms
        self.tls_ms = tls_ms
        self.tls_code = tls_code


class Dialled(msgspec.Struct, Generic[_P], kw_only=True):
    """A connection; the caller ends it with `transport.abort()` or `.close()`.

    Milliseconds; a phase that did not happen is negative (no name to resolve, no TLS).
    """

    transport: Wire
    protocol: _P
    address: str
    dns_ms: float
    connect_ms: float
    tls_ms: float

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER; None without TLS."""
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        return tls.getpeercert(True) if tls is not None else None


async def dial(
    protocol_factory: Callable[[], _P],
    *,
    host: str,
    port: int,
    tools: DialTools,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    family: int = 0,
) -> Dialled[_P]:
    """Connect to `host` (a name or an address) and hand the connection to a new protocol.

    With `tls` the handshake is made for `server_name`, else for `host`.  `family` is 0, 4 or 6.
    Raises DialError.
    """
    clock = tools.monotonic
    began = clock()
    dns_ms = -1.0
    try:
        addresses = tools.resolver.known(host, family=family)
        if addresses is None:
            addresses = await tools.resolver.resolve(host, family=family)
            dns_ms = (clock() - began) * 1000
    except ResolveError as error:
        raise DialError("dns", str(error), dns_ms=(clock() - began) * 1000) from None
    except asyncio.CancelledError as error:
        error.add_note(f"resolving {host}")
        raise
    allowed = []
    refused = ""
    for address in addresses:
        problem = tools.policy.problem(address)
        if problem:
            refused = refused or problem
        else:
            allowed.append(address)
    if not allowed:
        raise DialError("address", refused or f"{host} has no address", dns_ms=dns_ms)

    began = clock()
    sock, address = await _connect_any(allowed, port, clock, dns_ms)
    connected = clock()
    connect_ms = (connected - began) * 1000
    tls_ms = -1.0
    try:
        # Nagle's algorithm would hold back a request that follows the handshake's last bytes.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol = protocol_factory()
        if tls is None:
            wire = Wire(asyncio.get_running_loop(), sock, protocol)
        else:
            wire = await _secured(sock, protocol, tls, server_name or host)
            tls_ms = (clock() - connected) * 1000
    except _HandshakeError as error:
        raise DialError(
            "tls",
            handshake_text(error.cause, server_name or host),
            address=address,
            dns_ms=dns_ms,
            connect_ms=connect_ms,
            tls_ms=(clock() - connected) * 1000,
            tls_code=getattr(error.cause, "verify_code", 0),
        ) from None
    except asyncio.CancelledError as error:
        sock.close()
        error.add_note(f"in the TLS handshake with {shown(address, port)}")
        raise
    except BaseException:
        sock.close()
        raise
    try:
        wire.begin()
    except BaseException:
        wire.abort()
        raise
    return Dialled(
        transport=wire,
        protocol=protocol,
        address=address,
        dns_ms=dns_ms,
        connect_ms=connect_ms,
        tls_ms=tls_ms,
    )


class _HandshakeError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def _secured(
    sock: socket.socket, protocol: asyncio.Protocol, context: ssl.SSLContext, server_name: str
) -> Wire:
    """TLS over a connected socket, which is closed when that fails."""
    try:
        wire = TlsWire(
            asyncio.get_running_loop(), sock, protocol, context=context, server_name=server_name
        )
    except (ssl.SSLError, ValueError) as error:  # a server name that TLS cannot carry
        sock.close()
        raise _HandshakeError(error) from None
    try:
        await wire.handshake()
    except (ssl.SSLError, OSError) as error:
        wire.abort()
        raise _HandshakeError(error) from None
    except BaseException:
        wire.abort()
        raise
    return wire


async def _connect_any(
    addresses: list[str], port: int, clock: Callable[[], float], dns_ms: float
) -> tuple[socket.socket, str]:
    began = clock()
    text, address = "", ""
    for left, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        try:
            return await connect(address, port, slice_s=CONNECT_SLICE_S if left else 0), address
        except OSError as error:
            text = connect_text(error, address, port)
    if len(addresses) > 1:
        text += f" (the last of {len(addresses)} addresses tried)"
    raise DialError(
        "connect", text, address=address, dns_ms=dns_ms, connect_ms=(clock() - began) * 1000
    )


async def connect(address: str, port: int, *, slice_s: float = 0) -> socket.socket:
    """A connected, non-blocking socket.  Raises OSError; TimeoutError after `slice_s`, if any."""
    six = ":" in address
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, _STREAM)
    try:
        status = sock.connect_ex((address, port))
        if status == errno.EINPROGRESS:
            status = await _connected(sock, slice_s)
        if status:
            raise OSError(status, errno.errorcode.get(status, ""))
    except asyncio.CancelledError as error:
        sock.close()
        error.add_note(f"connecting to {shown(address, port)}")
        raise
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(sock: socket.socket, slice_s: float) -> int:
    loop = asyncio.get_running_loop()
    fd = sock.fileno()
    outcome: asyncio.Future[int] = loop.create_future()
    loop.add_writer(fd, _settle, outcome, sock)
    timer = loop.call_later(slice_s, _give_up, outcome) if slice_s else None
    try:
        return await outcome
    finally:
        loop.remove_writer(fd)
        if timer is not None:
            timer.cancel()


def _settle(outcome: asyncio.Future[int], sock: socket.socket) -> None:
    if not outcome.done():
        outcome.set_result(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _give_up(outcome: asyncio.Future[int]) -> None:
    if not outcome.done():
        outcome.set_result(errno.ETIMEDOUT)


_CONNECT = {
    errno.ECONNREFUSED: "refused the connection: nothing listens there",
    errno.ECONNRESET: "reset the connection",
    errno.ETIMEDOUT: "did not answer",
    errno.EHOSTUNREACH: "cannot be reached: no route to the host",
    errno.ENETUNREACH: "cannot be reached: this machine has no route to that network",
    errno.EADDRNOTAVAIL: "cannot be reached: this machine has no free port or no such address",
    errno.EMFILE: "was not tried: this process has no file descriptor left",
    errno.ENFILE: "was not tried: this machine has no file descriptor left",
    errno.EACCES: "was not tried: this machine's firewall forbids it",
    errno.EPERM: "was not tried: this machine's firewall forbids it",
}


def connect_text(error: OSError, address: str, port: int) -> str:
    """Why an address could not be connected to, in one sentence."""
    text = _CONNECT.get(error.errno or 0)
    return f"{shown(address, port)} {text or f'cannot be connected to: {error}'}"


def shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def deadline_text(error: BaseException, timeout_s: float) -> str:
    """What a probe that was cut off by `asyncio.timeout` was waiting for, in one sentence."""
    notes: list[str] = getattr(error.__cause__ or error, "__notes__", [])
    doing = f": still {notes[0]}" if notes else ""
    return f"no answer within {timeout_s:g} s{doing}"
