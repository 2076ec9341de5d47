"""Letters for tests, and an engine that answers for a sink as it is told."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.deadletter import DeadLetter
from pipeline.ids import first_id_at
from pipeline.redrive import Redriven

NOW_US = 1_790_000_000_000_000
_ids = itertools.count(first_id_at(NOW_US))


def letter(sink: str = "sink-a", **fields: Any) -> DeadLetter:
    record_id = fields.pop("record_id", None) or next(_ids)
    payload = fields.pop("payload", None) or {"message": "order placed", "n": record_id % 1000}
    raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    values: dict[str, Any] = {
        "sink": sink,
        "sink_name": f"name of {sink}",
        "record_id": record_id,
        "type": "log",
        "tenant": "default",
        "request_id": "req-1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "received_us": NOW_US,
        "timestamp_us": NOW_US - 1_000_001,
        "severity": 9,
        "service": "checkout",
        "message": "order placed",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
        "payload": raw,
        "reason": "permanent",
        "error": 'new row violates check constraint "positive": amount -5',
        "attempts": 1,
        "first_tried_us": NOW_US + 10,
        "last_tried_us": NOW_US + 20,
        "batch_id": "log-1",
    }
    return DeadLetter(**{**values, **fields})


def letters(count: int, sink: str = "sink-a", **fields: Any) -> list[DeadLetter]:
    return [letter(sink, **fields) for _ in range(count)]


@dataclass
class Sent:
    sink: str
    origin: str
    number: int
    letters: list[DeadLetter]
    on_done: Callable[[Any], None]


class FakeEngine:
    """Stores each batch once by its proof, as a sink with proofs does; refuses what it is told to.

    `hold` keeps the answers back, so that a test can stop in between.
    """

    def __init__(self, *, refuse: Callable[[DeadLetter], bool] = lambda letter: False) -> None:
        self.refuse = refuse
        self.proofs: dict[tuple[str, int], list[bytes]] = {}
        self.stored: list[DeadLetter] = []
        self.sent: list[Sent] = []
        self.give_up = 0
        # Refuses a batch as a whole, without saying which record it is.
        self.coarse = False
        self.missing: set[str] = set()
        self.hold = False
        self.came = threading.Semaphore(0)
        self.forgotten: list[tuple[str, str]] = []

    def forget(self, sink_key: str, log_id: str) -> None:
        self.forgotten.append((sink_key, log_id))

    def redrive(
        self,
        sink_key: str,
        *,
        origin: str,
        number: int,
        letters: Sequence[DeadLetter],
        on_done: Callable[[Any], None],
    ) -> None:
        if sink_key in self.missing:
            raise KeyError(sink_key)
        sent = Sent(sink_key, origin, number, list(letters), on_done)
        self.sent.append(sent)
        self.came.release()
        if not self.hold:
            self.finish(sent)

    def finish(self, sent: Sent) -> None:
        result = self.store(sent)
        if self.give_up:
            # Stored, and yet the answer is lost: as a COMMIT whose answer did not come.
            self.give_up -= 1
            sent.on_done(Redriven(given_up=True))
        else:
            sent.on_done(result)

    def store(self, sent: Sent) -> Redriven:
        refused = [
            msgspec.structs.replace(one, error="refused again", attempts=1, origin="")
            for one in sent.letters
            if self.refuse(one)
        ]
        good = [one for one in sent.letters if not self.refuse(one)]
        if refused and self.coarse and len(sent.letters) > 1:
            return Redriven(split=True)
        proof = (sent.origin, sent.number)
        if proof in self.proofs:
            assert self.proofs[proof] == [one.payload for one in sent.letters]
            return Redriven(already_stored=len(good), refused=refused)
        self.proofs[proof] = [one.payload for one in sent.letters]
        self.stored += good
        return Redriven(stored=len(good), refused=refused)
