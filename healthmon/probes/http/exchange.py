"""One request and its answer over one connection, as an asyncio protocol.

Runs on the checker's event loop; no locks.  A plain protocol with a hand-made reader behind it, not
streams: no task, no second buffer and no wake-up per read (see benchmarks/probe_http.py).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from healthmon.probes.http.answer import AnswerReader
from healthmon.probes.http.errors import AnswerError


class Exchange(asyncio.Protocol):
    """Sends `request` once connected; `finished` returns when the answer is complete."""

    __slots__ = ("_clock", "_done", "_request", "answer", "first_at", "sent_at")

    def __init__(
        self,
        *,
        request: bytes,
        answer: AnswerReader,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._request = request
        self._clock = clock
        self._done: asyncio.Future[None] = loop.create_future()
        self.answer = answer
        self.sent_at = 0.0
        self.first_at = 0.0

    async def finished(self) -> None:
        """Raises AnswerError; the caller ends the connection."""
        try:
            await self._done
        except asyncio.CancelledError as error:
            error.add_note(self.answer.phase)
            raise

    @property
    def first_byte_ms(self) -> float:
        """From the request to the answer's first byte; negative when none came."""
        return (self.first_at - self.sent_at) * 1000 if self.first_at else -1.0

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.sent_at = self._clock()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.first_at:
            self.first_at = self._clock()
        if self._done.done():
            return
        try:
            if self.answer.feed(data):
                self._done.set_result(None)
        except AnswerError as error:
            self._done.set_exception(error)

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._end()
        elif not self._done.done():
            how = "broke" if isinstance(exc, ssl.SSLError) else "was reset"
            text = f"the connection {how} while {self.answer.phase}"
            self._done.set_exception(AnswerError(text))
            self._done.exception()  # read here too: whoever waited may be gone

    def _end(self) -> None:
        if self._done.done():
            return
        try:
            self.answer.end()
        except AnswerError as error:
            self._done.set_exception(error)
            self._done.exception()
        else:
            self._done.set_result(None)
