"""WebSocket frames (RFC 6455), as far as a probe needs them, all bounded.

Pure: no I/O.  One reader serves one connection.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import NamedTuple

MAX_FRAMES = 1000


class Opcode(IntEnum):
    CONTINUATION, TEXT, BINARY = 0, 1, 2
    CLOSE, PING, PONG = 8, 9, 10


class Message(NamedTuple):
    opcode: Opcode
    payload: bytes


class FrameError(Exception):
    """What the server sent is not WebSocket, or too much of it; one sentence."""


def masked(opcode: Opcode, payload: bytes) -> bytes:
    """One whole frame from a client, which must mask what it sends."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8)
    key = os.urandom(4)
    stream = (key * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload) ^ int.from_bytes(stream)
    return head + key + mixed.to_bytes(size)


class FrameReader:
    """Messages out of a server's bytes, fragments put together, at most `max_bytes` each."""

    __slots__ = ("_begun", "_frames", "_held", "_max_bytes", "_parts")

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._parts = bytearray()
        self._begun: Opcode | None = None
        self._frames = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now.  Raises FrameError."""
        self._held += data
        messages = []
        while (found := self._take_frame()) is not None:
            self._frames += 1
            if self._frames > MAX_FRAMES:
                raise FrameError(f"more than {MAX_FRAMES} frames came before the reply")
            message = self._join(*found)
            if message is not None:
                messages.append(message)
        return messages

    def _take_frame(self) -> tuple[bool, Opcode, bytes] | None:
        held = self._held
        if len(held) < 2:
            return None
        if held[0] & 0x70:
            raise FrameError("a frame uses an extension that was not asked for")
        if held[1] & 0x80:
            raise FrameError("a frame from the server is masked")
        try:
            opcode = Opcode(held[0] & 0x0F)
        except ValueError:
            raise FrameError("a frame has an unknown opcode") from None
        last = bool(held[0] & 0x80)
        size, at = held[1] & 0x7F, 2
        if opcode >= Opcode.CLOSE and (size > 125 or not last):
            raise FrameError("a control frame is too long or fragmented")
        if size >= 126:
            at = 4 if size == 126 else 10
            if len(held) < at:
                return None
            size = int.from_bytes(held[2:at])
        if size + len(self._parts) > self._max_bytes:
            raise FrameError(f"a message is longer than the {self._max_bytes} bytes that are read")
        if len(held) < at + size:
            return None
        payload = bytes(held[at : at + size])
        del held[: at + size]
        return last, opcode, payload

    def _join(self, last: bool, opcode: Opcode, payload: bytes) -> Message | None:
        if opcode >= Opcode.CLOSE:
            return Message(opcode, payload)
        if (opcode is Opcode.CONTINUATION) != (self._begun is not None):
            raise FrameError("fragments of messages come in the wrong order")
        begun = self._begun or opcode
        self._parts += payload
        if not last:
            self._begun = begun
            return None
        whole = bytes(self._parts)
        self._parts.clear()
        self._begun = None
        return Message(begun, whole)
