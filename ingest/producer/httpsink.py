"""Owns: batches to another collector's `POST /logs`, for a producer that is given a URL.

Workers write, each on a connection of its own while it does; `_lock` guards the idle connections.
A server that refuses is heeded by way of the queue: batches wait for as long as it asked, one of
them then finds out whether it takes more, the queue fills, and the producer slows down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from ingest.client.response import Response, detail_of
from ingest.client.retry import parse_retry_after
from ingest.client.sender import NoAnswer, Sender
from ingest.client.target import Target
from ingest.producer.gate import Gate, Turn
from ingest.producer.slowsink import Tally
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from pipeline.record import Batch
from pipeline.runtime.clock import Clock

# How long a worker waits for its turn with a batch in hand, before it puts the batch back.
_PATIENCE_S = 20.0
# After a refusal that does not say for how long.
_REFUSED_S = 1.0

# The request itself is wrong, whatever it carries: trying again cannot help.
_MISTAKEN = frozenset({401, 403, 404, 405, 411, 415, 421})


class _Rejected(msgspec.Struct):
    index: int
    code: str = ""
    detail: str = ""


class _Answer(msgspec.Struct):
    accepted: int
    rejected: int = 0
    shed: int = 0
    errors: list[_Rejected] = []


_answer = msgspec.json.Decoder(_Answer)


class HttpSink:
    """Sends each batch as NDJSON in one request, under an Idempotency-Key of its own.

    `fatal` is called with the reason when no batch can ever be taken: the wrong key, no such
    address, nobody there at the start.
    """

    def __init__(
        self,
        *,
        target: Target,
        head: bytes,
        timeout_s: float,
        run: str,
        tally: Tally,
        fatal: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._target, self._head, self._timeout_s, self._run = target, head, timeout_s, run
        self._tally, self._fatal = tally, fatal
        self._lock = threading.Lock()
        self._idle: list[Sender] = []
        self._answered = False
        self._gate = Gate(clock=clock)
        self._refusal = "the server refuses"  # the latest, in its words

    def reach(self) -> None:
        """Make a first connection; raises NoAnswer, with what to do, if nobody is there."""
        sender = Sender(self._target, timeout_s=self._timeout_s)
        try:
            sender.connect()
        except NoAnswer as error:
            raise NoAnswer(_nobody(error), connected=False) from None
        with self._lock:
            self._idle.append(sender)

    def open(self) -> None:
        """Connections are made when they are needed."""

    def abort(self) -> None:
        """Who waits for his turn stops; a request ends by itself, at the latest by its timeout."""
        self._gate.abort()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for sender in idle:
            sender.close()

    def write(self, batch: Batch) -> None:
        turn = self._gate.enter(patience_s=_PATIENCE_S)
        if turn is Turn.WAIT:
            raise RetryableError(self._refusal, retry_after_s=self._gate.closed_for_s())
        refused_for_s: float | None = None
        try:
            self._send(batch)
        except RetryableError as error:
            self._refusal = str(error)
            after_s = error.retry_after_s
            refused_for_s = _REFUSED_S if after_s is None else after_s
            raise
        finally:
            self._gate.left(turn, refused_for_s=refused_for_s)

    def _send(self, batch: Batch) -> None:
        body = b"\n".join(record.payload for record in batch.records)
        response = self._post(body, f"{self._run}-{batch.number}")
        self._answered = True
        status = response.status
        if 200 <= status < 300:
            self._accepted(batch, response)
        elif status in (408, 409, 429) or status >= 500:
            after = parse_retry_after(response.headers.get("retry-after", ""))
            raise RetryableError(f"{status} {detail_of(response)}", retry_after_s=after)
        elif status in _MISTAKEN or status < 400:
            reason = f"the server answered {status}: {detail_of(response)}"
            self._fatal(reason)
            raise SinkFault(reason)
        else:
            raise PermanentError(f"{status} {detail_of(response)}")

    def _post(self, body: bytes, key: str) -> Response:
        with self._lock:
            sender = self._idle.pop() if self._idle else None
        sender = sender or Sender(self._target, timeout_s=self._timeout_s)
        try:
            return sender.post(self._head, body, key=key)
        except NoAnswer as error:
            if not error.connected and not self._answered:
                self._fatal(_nobody(error))
            raise RetryableError(str(error)) from None
        finally:
            with self._lock:
                self._idle.append(sender)

    def _accepted(self, batch: Batch, response: Response) -> None:
        try:
            answer = _answer.decode(response.body)
        except msgspec.DecodeError:
            answer = _Answer(accepted=-1)
        if answer.accepted + answer.rejected + answer.shed != batch.count:
            reason = (
                f"the server answered {response.status} without saying what became of all "
                f"{batch.count} logs: {detail_of(response)}. Is that URL a collector?"
            )
            self._fatal(reason)
            raise SinkFault(reason)
        # What the server shed it has answered for: it is not sent again, nor was it processed.
        self._tally.add(answer.accepted)
        if answer.rejected:
            raise PartialFailure({one.index: f"{one.code} {one.detail}" for one in answer.errors})


def _nobody(error: NoAnswer) -> str:
    return f"{error}. Is the server running there?"
