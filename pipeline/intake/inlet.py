"""The inlet: records that come one at a time, taken in together.

An offer costs the same for one record as for hundreds, most of it locks and bookkeeping.  An inlet
gathers what is put into it and offers it in one frame: once there are `max_records`, or some
milliseconds after the first.  Like a buffered file it is quick because it promises less: what was
put is in the engine's log after the next `flush`, and until then in this process's memory, at most
`max_records` and whatever threads were putting at that moment.

Any number of threads may `put`.  `_lock` lets one of them at a time offer; records are put and
taken out by single operations of a deque, so that putting needs no lock.  `Inlets` has one thread
for all inlets of an engine, which offers what nobody's `put` has; `_wake` guards whether it is to
look and to stop.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.errors import Draining, Refused, TooLarge
from pipeline.record import Record
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

MAX_RECORDS = 500
MAX_WAIT_S = 0.005
# How soon it is tried again when the engine has no room.
AGAIN_S = 0.01

Offer = Callable[[Sequence[Record]], object]
Drop = Callable[[Sequence[Record], str, str], object]


class Inlet:
    """See the module's text.  Made by `Engine.inlet`."""

    def __init__(
        self, *, offer: Offer, drop: Drop, max_records: int, wake: Callable[[], object]
    ) -> None:
        """`drop` is told of records that can never be taken in: these, the reason, why."""
        if max_records < 1:
            raise ValueError("max_records must be at least 1")
        self._offer = offer
        self._drop = drop
        self._max = max_records
        self._wake = wake
        self._lock = threading.Lock()
        self._records: deque[Record] = deque()
        self._under_way = 0
        self._closed = False

    @property
    def held(self) -> int:
        """Records that were put and are not in the engine's log yet."""
        return len(self._records) + self._under_way

    def put(self, record: Record) -> None:
        """Take one record in.

        Raises what `Engine.offer` does, such as Saturated, while as many as an inlet holds wait
        for room, and Draining once the engine stops: the record was not taken then.
        """
        records = self._records
        if len(records) >= self._max:
            self.flush()
        if self._is_closed():
            raise Draining("the inlet is closed", retry_after_s=5.0)
        records.append(record)
        if self._is_closed() and self._take_back(record):
            raise Draining("the inlet is closed", retry_after_s=5.0)
        self._wake()

    def _is_closed(self) -> bool:
        return self._closed

    def _take_back(self, record: Record) -> bool:
        """Whether a record is still here that came while the inlet was closed."""
        with self._lock:
            for index, one in enumerate(self._records):
                if one is record:
                    del self._records[index]
                    return True
        return False

    def flush(self) -> None:
        """Offer all that was put; raises what `Engine.offer` does, and keeps the records then."""
        with self._lock:
            while self._records:
                self._flush_some()

    def _flush_some(self) -> None:
        records = self._records
        taken = [records.popleft() for _ in range(min(len(records), self._max))]
        self._under_way = len(taken)
        try:
            while taken:
                some = self._offer_some(taken)
                del taken[:some]
                self._under_way = len(taken)
        except BaseException:
            records.extendleft(reversed(taken))
            raise
        finally:
            self._under_way = 0

    def _offer_some(self, records: list[Record]) -> int:
        """Offer the first records, as many as a sink may hold at all; returns how many."""
        count = len(records)
        while True:
            try:
                self._offer(records[:count])
                return count
            except TooLarge as error:
                if count == 1:
                    log.error("a record can never be taken in, and is dropped: %s", error)
                    self._drop(records[:1], "too_large", str(error))
                    return 1
                count //= 2

    def close(self) -> None:
        """Take nothing more; what is held is still taken in."""
        self._closed = True
        self._wake()

    @property
    def done(self) -> bool:
        """Whether it is closed and empty."""
        return self._closed and not self.held

    def give_up(self) -> list[Record]:
        """Take out what is held, as nobody will offer it any more."""
        with self._lock:
            left = list(self._records)
            self._records.clear()
            return left


class Inlets:
    """The inlets of one engine, and the thread that flushes those which nobody fills.

    `start` and `stop` are idempotent; the thread starts with the first inlet.
    """

    def __init__(self, *, clock: Clock, max_wait_s: float = MAX_WAIT_S) -> None:
        self._clock = clock
        self._max_wait_s = max_wait_s
        self._wake = threading.Condition()
        self._due = False
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._inlets: list[tuple[str, Inlet]] = []

    @property
    def held(self) -> int:
        """Records in all inlets."""
        return sum(inlet.held for _, inlet in self._inlets)

    def make(self, *, tenant: str, offer: Offer, drop: Drop, max_records: int) -> Inlet:
        inlet = Inlet(offer=offer, drop=drop, max_records=max_records, wake=self._call)
        with self._wake:
            if self._stopped:
                inlet.close()
                return inlet
            self._inlets = [*(one for one in self._inlets if not one[1].done), (tenant, inlet)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="inlets", daemon=True)
                self._thread.start()
        return inlet

    def _call(self) -> None:
        """An inlet has a record."""
        if not self._due:
            with self._wake:
                self._due = True
                self._wake.notify()

    def close(self, timeout_s: float) -> None:
        """Let no inlet take anything more, and offer what they hold, for so long if need be."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        due = self._clock.monotonic() + timeout_s
        for _, inlet in self._inlets:
            inlet.close()
            while inlet.held:
                try:
                    inlet.flush()
                except Refused:
                    if self._clock.monotonic() >= due:
                        break
                    with self._wake:
                        self._clock.wait(self._wake, AGAIN_S)

    def give_up(self) -> list[tuple[str, list[Record]]]:
        """What could not be offered, by tenant."""
        left = [(tenant, inlet.give_up()) for tenant, inlet in self._inlets]
        return [(tenant, records) for tenant, records in left if records]

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._due or self._stopped):
                    self._clock.wait(self._wake, None)
                if self._stopped:
                    return
                due = self._clock.monotonic() + self._max_wait_s
                while not self._stopped and (left := due - self._clock.monotonic()) > 0:
                    self._clock.wait(self._wake, left)
                self._due = False
            refused = False
            for _, inlet in self._inlets:
                try:
                    inlet.flush()
                except Refused:
                    refused = True
                except Exception:
                    log.exception("an inlet could not be flushed; its records stay in it")
                    refused = True
            if refused:
                self._again()

    def _again(self) -> None:
        with self._wake:
            due = self._clock.monotonic() + AGAIN_S
            while not self._stopped and (left := due - self._clock.monotonic()) > 0:
                self._clock.wait(self._wake, left)
            self._due = True
