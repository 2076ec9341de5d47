"""Probing a WebSocket: the upgrade, then a message and its reply where they are asked for.

Runs on the checker's event loop; no locks.  The upgrade is read by the HTTP probe's reader, frames
by `wsframes`.  A connection is closed with a close frame; the server's own is waited for only while
its reply is.
"""

from __future__ import annotations

import asyncio
import os
import time
from base64 import b64encode
from collections.abc import Callable
from functools import cached_property
from hashlib import sha1
from typing import Annotated, cast

from msgspec import Meta

from healthmon.probes.http.address import (
    WEBSOCKET_SCHEMES,
    AddressError,
    Url,
    host_of,
    parse,
    websocket_problem,
)
from healthmon.probes.http.answer import AnswerReader
from healthmon.probes.http.certificate import judge_certificate
from healthmon.probes.http.errors import AnswerError
from healthmon.probes.http.sending import (
    NONE,
    BearerToken,
    CaFile,
    DaysDegraded,
    DaysFailed,
    Headers,
    Pairs,
    Password,
    SecretHeaders,
    ServerName,
    Username,
    VerifyTls,
    build_request,
    read_headers,
)
from healthmon.probes.kind import ERROR_CHARS, FAILED, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.dial import DialError, Dialled, dial
from healthmon.probes.net.tls import ContextError
from healthmon.probes.tools import Tools
from healthmon.probes.wsframes import FrameError, FrameReader, Message, Opcode, masked

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NORMAL = (1000).to_bytes(2)


class WebSocketOptions(ProbeOptions, frozen=True, kw_only=True, dict=True):
    """`dict` lets the headers made of the options be kept with them."""

    send: Annotated[
        str, Meta(max_length=64 * 1024, description="A text to send once connected. Empty: none.")
    ] = ""
    expect: Annotated[
        str,
        Meta(max_length=1000, description="Must be in a message that comes then. Empty: none."),
    ] = ""
    subprotocol: Annotated[
        str,
        Meta(
            pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]*$",
            max_length=100,
            description="Asked for, and must be agreed to.",
        ),
    ] = ""
    headers: Headers = {}
    username: Username = ""
    password: Password = NONE
    bearer_token: BearerToken = NONE
    secret_headers: SecretHeaders = NONE
    verify_tls: VerifyTls = True
    ca_file: CaFile = ""
    server_name: ServerName = ""
    cert_days_degraded: DaysDegraded = 14
    cert_days_failed: DaysFailed = 0

    def __post_init__(self) -> None:
        _ = self.sent_headers  # refuses what cannot be sent

    @cached_property
    def sent_headers(self) -> Pairs:
        """Raises ValueError naming the option."""
        return read_headers(self)


class _Conversation(asyncio.Protocol):
    """Upgrade, then frames.  `upgraded` and `replied` are what is waited for, one after another."""

    def __init__(
        self,
        *,
        request: bytes,
        clock: Callable[[], float],
        max_bytes: int,
        expect: bytes,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._clock = clock
        self._expect = expect
        self._frames = FrameReader(max_bytes=max_bytes)
        self._transport: asyncio.WriteTransport | None = None
        # Whatever comes instead of an upgrade is judged by its head.
        self.answer = AnswerReader(max_body_bytes=0, bodiless=True)
        self.upgraded: asyncio.Future[None] = loop.create_future()
        self.replied: asyncio.Future[None] = loop.create_future()
        self.sent_at = self.first_at = 0.0

    def send(self, opcode: Opcode, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(masked(opcode, payload))

    def fail(self, text: str) -> None:
        for waited in (self.upgraded, self.replied):
            if not waited.done():
                waited.set_exception(AnswerError(text))
                waited.exception()  # read here too: whoever waited may be gone

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self.sent_at = self._clock()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.first_at:
            self.first_at = self._clock()
        try:
            if not self.upgraded.done():
                if not self.answer.feed(data):
                    return
                self.upgraded.set_result(None)
                if self.answer.status != 101:
                    return
                data = self.answer.rest
            if not self.replied.done():
                for message in self._frames.feed(data):
                    self._take(message)
        except (AnswerError, FrameError) as error:
            self.fail(str(error))

    def eof_received(self) -> None:
        if not self.upgraded.done():
            try:
                self.answer.end()
            except AnswerError as error:
                self.fail(str(error))
            else:
                self.upgraded.set_result(None)
        self.fail("the connection was closed before the reply came")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.eof_received()
        else:
            phase = "waiting for the reply" if self.upgraded.done() else self.answer.phase
            self.fail(f"the connection was reset while {phase}")

    def _take(self, message: Message) -> None:
        if message.opcode is Opcode.PING:
            self.send(Opcode.PONG, message.payload)
        elif message.opcode is Opcode.CLOSE:
            code = int.from_bytes(message.payload[:2]) or 1005
            self.fail(f"the server closed the WebSocket (code {code}) before the reply came")
        elif (
            message.opcode is not Opcode.PONG
            and self._expect in message.payload
            and not self.replied.done()
        ):
            # Others may have come before: a greeting, what is broadcast.
            self.replied.set_result(None)


async def probe(request: Request, tools: Tools) -> Result:
    """Never raises for what a target does; cancellable at any await."""
    options = cast(WebSocketOptions, request.options)
    began = tools.monotonic()
    result = Result()
    try:
        url = parse(request.address, WEBSOCKET_SCHEMES)
        await _talk(url, options, tools, result)
        if result.cert_expires_us:
            now_us = int(time.time() * 1_000_000)
            result.outcome, result.error = judge_certificate(
                result.cert_expires_us, options, now_us
            )
    except (AddressError, DialError, AnswerError, ContextError) as failure:
        result.outcome, result.error = FAILED, str(failure)[:ERROR_CHARS]
    result.total_ms = (tools.monotonic() - began) * 1000
    return result


async def _talk(url: Url, options: WebSocketOptions, tools: Tools, result: Result) -> None:
    key = b64encode(os.urandom(16))
    conversation = _Conversation(
        request=_request(url, options, tools.user_agent, key.decode()),
        clock=tools.monotonic,
        max_bytes=tools.max_body_bytes,
        expect=options.expect.encode(),
    )
    try:
        dialled = await dial(
            lambda: conversation,
            host=url.host,
            port=url.port,
            tools=tools,
            tls=tools.contexts.get(options.verify_tls, options.ca_file) if url.tls else None,
            server_name=options.server_name,
        )
    except DialError as failure:
        _note_times(result, failure)
        raise
    _note_times(result, dialled)
    doing = conversation.answer.phase
    try:
        if url.tls:
            result.cert_expires_us = tools.contexts.expires_us(dialled.peer_certificate())
        await conversation.upgraded
        result.code = conversation.answer.status
        check_upgrade(conversation.answer, key, options.subprotocol)
        doing = "waiting for the reply"
        if options.send:
            conversation.send(Opcode.TEXT, options.send.encode())
        if options.expect:
            await conversation.replied
        conversation.send(Opcode.CLOSE, _NORMAL)
    except asyncio.CancelledError as error:
        error.add_note(doing)
        raise
    finally:
        dialled.transport.abort()
        if conversation.first_at:
            result.first_byte_ms = (conversation.first_at - conversation.sent_at) * 1000


def _request(url: Url, options: WebSocketOptions, agent: str, key: str) -> bytes:
    last = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    if options.subprotocol:
        last.append(("Sec-WebSocket-Protocol", options.subprotocol))
    return build_request("GET", url, agent, options.sent_headers, last=last)


def check_upgrade(answer: AnswerReader, key: bytes, subprotocol: str) -> None:
    """Raises AnswerError unless the server agreed to what it was asked (RFC 6455, 4.1)."""
    headers = answer.headers
    if answer.status != 101:
        raise AnswerError(f"the upgrade was answered with the status {answer.status}, not with 101")
    connection = {token.strip() for token in headers.get("connection", "").lower().split(",")}
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in connection:
        raise AnswerError("the answer with the status 101 is not an upgrade to WebSocket")
    accept = b64encode(sha1(key + _GUID).digest()).decode()  # noqa: S324 (the protocol's own)
    if headers.get("sec-websocket-accept") != accept:
        raise AnswerError("the answer's Sec-WebSocket-Accept is not the one for this request")
    if headers.get("sec-websocket-extensions"):
        raise AnswerError("the server uses an extension that was not asked for")
    if headers.get("sec-websocket-protocol", "") != subprotocol:
        wanted = f"the subprotocol {subprotocol}" if subprotocol else "no subprotocol"
        raise AnswerError(f"the server did not agree to {wanted}")


def _note_times(result: Result, phases: DialError | Dialled[_Conversation]) -> None:
    result.address = phases.address
    result.dns_ms = phases.dns_ms
    result.connect_ms = phases.connect_ms
    result.tls_ms = phases.tls_ms


KIND = ProbeKind(
    name="websocket",
    label="WebSocket",
    description="Upgrades to a WebSocket, and may send a message and wait for a reply.",
    Options=WebSocketOptions,
    address_label="URL",
    address_example="wss://example.com/socket",
    address_problem=websocket_problem,
    host=host_of,
    probe=probe,
)
