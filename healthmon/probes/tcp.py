"""TCP: a connection, and if wanted a text to send and one to find in the reply.

Runs on the checker's event loop, inside its deadline; keeps nothing.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from healthmon.probes.kind import FAILED, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.dial import DialError, Dialled, dial
from healthmon.probes.net.exchange import Exchange
from healthmon.probes.net.names import split, split_problem
from healthmon.probes.net.tls import ContextError
from healthmon.probes.tools import Tools

MAX_REPLY_BYTES = 64 * 1024
MAX_TEXT_CHARS = 4_096
SHOWN_BYTES = 80

_ESCAPE = re.compile(rb"\\(?:([rnt0\\])|x([0-9A-Fa-f]{2}))")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


class TcpOptions(ProbeOptions, frozen=True, kw_only=True):
    send: Annotated[
        str,
        msgspec.Meta(
            max_length=MAX_TEXT_CHARS,
            description="Sent once connected; \\r \\n \\t \\xNN stand for those bytes.",
        ),
    ] = ""
    expect: Annotated[
        str,
        msgspec.Meta(
            max_length=MAX_TEXT_CHARS,
            description="Must occur in the reply, of which 64 KiB are read. Empty: no reply.",
        ),
    ] = ""
    tls: Annotated[bool, msgspec.Meta(description="Speak TLS from the first byte.")] = False
    verify_tls: Annotated[
        bool, msgspec.Meta(description="With TLS: the certificate must be trusted.")
    ] = True
    ca_file: Annotated[
        str,
        msgspec.Meta(max_length=500, description="With TLS: a PEM file of authorities to trust."),
    ] = ""
    server_name: Annotated[
        str,
        msgspec.Meta(max_length=253, description="With TLS: the name to ask for; else the host."),
    ] = ""


async def probe(request: Request, tools: Tools) -> Result:
    options = request.options
    assert isinstance(options, TcpOptions)
    host, port = split(request.address)
    clock = tools.monotonic
    began = clock()
    try:
        tls = tools.contexts.get(options.verify_tls, options.ca_file) if options.tls else None
        dialled = await dial(
            lambda: Exchange(max_bytes=MAX_REPLY_BYTES, clock=clock),
            host=host,
            port=port,
            tools=tools,
            tls=tls,
            server_name=options.server_name,
        )
    except ContextError as error:
        return Result(outcome=FAILED, error=str(error))
    except DialError as error:
        return failed(error)
    try:
        result = Result(
            address=dialled.address,
            dns_ms=dialled.dns_ms,
            connect_ms=dialled.connect_ms,
            tls_ms=dialled.tls_ms,
            cert_expires_us=tools.contexts.expires_us(dialled.peer_certificate()),
        )
        if options.send or options.expect:
            sent = clock()
            error_text = await _converse(dialled, options)
            if error_text:
                result.outcome, result.error = FAILED, error_text
            if dialled.protocol.data:
                result.first_byte_ms = max(dialled.protocol.first_byte_at - sent, 0) * 1000
        result.total_ms = (clock() - began) * 1000
        return result
    finally:
        dialled.transport.abort()


async def _converse(dialled: Dialled[Exchange], options: TcpOptions) -> str:
    exchange = dialled.protocol
    if options.send:
        dialled.transport.write(unescape(options.send))
    if not options.expect:
        return ""
    wanted = unescape(options.expect)
    if await exchange.until(lambda data: wanted in data):
        return ""
    got = f"; it begins with {shown(exchange.data)}" if exchange.data else ""
    if exchange.full:
        return f"the first {MAX_REPLY_BYTES} bytes of the reply lack the expected text{got}"
    if isinstance(exchange.error, ConnectionResetError):
        return f"the connection was reset before the expected text came{got}"
    return f"the connection was closed before the expected text came{got}"


def failed(error: DialError) -> Result:
    """A connection that did not come about, as a result."""
    return Result(
        outcome=FAILED,
        error=error.text,
        address=error.address,
        dns_ms=error.dns_ms,
        connect_ms=error.connect_ms,
        tls_ms=error.tls_ms,
    )


def unescape(text: str) -> bytes:
    r"""The bytes of a text in which \r \n \t \0 \\ and \xNN stand for one byte each."""
    return _ESCAPE.sub(
        lambda match: _PLAIN[match[1]] if match[1] else bytes.fromhex(match[2].decode()),
        text.encode("utf-8", "surrogatepass"),
    )


def shown(data: bytearray) -> str:
    return repr(bytes(data[:SHOWN_BYTES]).decode("utf-8", "replace"))


KIND = ProbeKind(
    name="tcp",
    label="TCP",
    description="Connects to a port; can send a text and look for another in the reply.",
    Options=TcpOptions,
    address_label="Host and port",
    address_example="db.example.org:5432",
    address_problem=split_problem,
    host=lambda address: split(address)[0],
    probe=probe,
)
