"""The protocol of short exchanges: send, then read until there is enough, or the end.

Runs on the event loop of its probe; what it holds is bounded by `max_bytes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Exchange(asyncio.Protocol):
    """`until(enough)` waits; `data` is what has come: at most `max_bytes`, then no more is read."""

    def __init__(self, *, max_bytes: int, clock: Callable[[], float]) -> None:
        self.data = bytearray()
        self.ended = False
        self.full = False
        self.error: Exception | None = None
        self.first_byte_at = 0.0
        self._max_bytes = max_bytes
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def until(self, enough: Callable[[bytearray], bool]) -> bool:
        """True as soon as `enough(data)`; False when the peer ended or sent too much before."""
        while not enough(self.data):
            if self.ended or self.full:
                return False
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as error:
                error.add_note(f"waiting for a reply, with {len(self.data)} bytes received")
                raise
            finally:
                self._waiter = None
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.data:
            self.first_byte_at = self._clock()
        room = self._max_bytes - len(self.data)
        self.data += data[:room]
        if len(data) >= room:
            self.full = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.error = self.error or exc
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
