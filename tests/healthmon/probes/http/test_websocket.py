"""WebSocket: the upgrade, a message and its reply, frames in every shape."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmon.probes.kind import Result
from healthmon.probes.wsframes import FrameError, FrameReader, Message, Opcode, masked
from tests.healthmon.probes import stand
from tests.healthmon.probes.http.wsserver import accepting, frame, upgrading
from tests.healthmon.probes.listeners.authority import authority
from tests.healthmon.probes.listeners.tcp import Behaviour, Listener, answers

EXPECTING = {"expect": "x"}
CLOSE = b"\x08" + (1000).to_bytes(2)


def _visit(behaviour: Behaviour, **options: Any) -> tuple[Result, list[bytes]]:
    with Listener(behaviour) as listener:
        result = stand.probe("websocket", f"ws://{listener.where}/socket?x=1", options)
    return result, listener.received


def test_an_upgrade_alone_then_a_proper_goodbye() -> None:
    result, received = _visit(accepting(), headers={"Origin": "https://a.test"}, bearer_token="t")
    assert (result.outcome, result.error, result.code) == ("ok", "", 101)
    assert result.first_byte_ms >= 0
    head = received[0].split(b"\r\n")
    assert head[0] == b"GET /socket?x=1 HTTP/1.1"
    assert {b"Origin: https://a.test", b"Authorization: Bearer t", b"Upgrade: websocket",
            b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"} <= set(head)  # fmt: skip
    assert received[1:] == [CLOSE]


def test_a_message_and_a_reply_among_others() -> None:
    result, received = _visit(upgrading, send="ping é", expect="pong")
    assert (result.outcome, result.error) == ("ok", "")
    assert "\x01ping é".encode() in received
    assert b"\x0athere?" in received  # the ping was answered
    assert received[-1] == CLOSE


def test_over_tls() -> None:
    with Listener(upgrading, tls=authority().server_context(days=5)) as listener:
        options = {"expect": "pong", "ca_file": authority().ca_file}
        result = stand.probe("websocket", f"wss://{listener.where}/", options)
    assert result.outcome == "degraded"
    assert "the certificate expires on" in result.error
    assert result.tls_ms > 0


@pytest.mark.parametrize(
    ("behaviour", "options", "error"),
    [
        (
            accepting(status=b"403 Forbidden"),
            {},
            "the upgrade was answered with the status 403, not with 101",
        ),
        (
            accepting(upgrade=b"h2c"),
            {},
            "the answer with the status 101 is not an upgrade to WebSocket",
        ),
        (
            accepting(accept=b"bm9wZQ=="),
            {},
            "the answer's Sec-WebSocket-Accept is not the one for this request",
        ),
        (
            accepting(headers=b"Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            {},
            "the server uses an extension that was not asked for",
        ),
        (
            accepting(headers=b"Sec-WebSocket-Protocol: chat\r\n"),
            {},
            "the server did not agree to no subprotocol",
        ),
        (
            accepting(),
            {"subprotocol": "chat"},
            "the server did not agree to the subprotocol chat",
        ),
        (
            accepting(frame(8, (1011).to_bytes(2))),
            EXPECTING,
            "the server closed the WebSocket (code 1011) before the reply came",
        ),
        (
            accepting(frame(8, b"")),
            EXPECTING,
            "the server closed the WebSocket (code 1005) before the reply came",
        ),
        (accepting(b"\x81\x80aaaa"), EXPECTING, "a frame from the server is masked"),
        (accepting(b"\xc1\x00"), EXPECTING, "a frame uses an extension that was not asked for"),
        (accepting(b"\x83\x00"), EXPECTING, "a frame has an unknown opcode"),
        (accepting(b"\x89\x7e\x01\x00"), EXPECTING, "a control frame is too long or fragmented"),
        (accepting(b"\x80\x00"), EXPECTING, "fragments of messages come in the wrong order"),
        (
            accepting(b"\x81\x7f" + b"\x7f" * 8),
            EXPECTING,
            "a message is longer than the 65536 bytes that are read",
        ),
        (
            accepting(frame(1, b"no") * 1001),
            EXPECTING,
            "more than 1000 frames came before the reply",
        ),
        (
            answers(b"SSH-2.0-x\r\n"),
            {},
            "the answer is not HTTP: it begins with 'SSH-2.0-x\\r\\n'",
        ),
    ],
)
def test_what_goes_wrong(behaviour: Behaviour, options: dict[str, Any], error: str) -> None:
    result, _ = _visit(behaviour, **options)
    assert (result.outcome, result.error) == ("failed", error)


def test_a_server_that_closes_before_it_replies() -> None:
    def behave(sock: Any, listener: Listener) -> None:
        try:
            accepting(frame(1, b"bye"))(cast(Any, _Closing(sock)), listener)
        except ConnectionResetError:
            pass

    result, _ = _visit(behave, expect="x")
    assert result.error == "the connection was closed before the reply came"


class _Closing:
    """Sends, then has nothing more to read."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._sent = False

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)
        self._sent = True

    def recv(self, count: int) -> bytes:
        return b"" if self._sent else self._sock.recv(count)  # type: ignore[no-any-return]


_messages = st.lists(
    st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.binary(max_size=300),
              st.integers(1, 4), st.booleans()),
    max_size=5,
)  # fmt: skip


@given(_messages, st.data())
def test_frames_are_read_however_they_are_cut(messages: Any, data: st.DataObject) -> None:
    wire, expected = b"", []
    for opcode, payload, parts, pinged in messages:
        size = len(payload) // parts + 1
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for at, piece in enumerate(pieces):
            wire += frame(0 if at else opcode, piece, last=at == len(pieces) - 1)
            if pinged and at == 0:
                wire += frame(9, b"p")
                expected.append(Message(Opcode.PING, b"p"))
                if len(pieces) == 1:
                    expected.pop()
                    expected += [Message(opcode, payload), Message(Opcode.PING, b"p")]
        if not (pinged and len(pieces) == 1):
            expected.append(Message(opcode, payload))
    cut = data.draw(st.integers(0, len(wire)))

    for pieces in (
        [wire],
        [wire[:cut], wire[cut:]],
        [wire[at : at + 1] for at in range(len(wire))],
    ):
        reader = FrameReader(max_bytes=1000)
        assert [message for piece in pieces for message in reader.feed(piece)] == expected


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_frames_or_an_error(pieces: list[bytes]) -> None:
    reader = FrameReader(max_bytes=100)
    with contextlib.suppress(FrameError):
        for piece in pieces:
            for message in reader.feed(piece):
                assert len(message.payload) <= 125


@given(st.binary(max_size=70_000))
def test_a_masked_frame_is_the_payload_again(payload: bytes) -> None:
    wire = masked(Opcode.BINARY, payload)
    at = 2 if len(payload) < 126 else 4 if len(payload) < 65_536 else 10
    key, mixed = wire[at : at + 4], wire[at + 4 :]
    assert wire[1] & 0x80
    stream = (key * (len(mixed) // 4 + 1))[: len(mixed)]
    assert (int.from_bytes(mixed) ^ int.from_bytes(stream)).to_bytes(len(mixed)) == payload
