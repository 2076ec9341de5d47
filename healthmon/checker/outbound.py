"""What leaves the checker: results about once a second, flips at once, both through the engine.

`result` and `flip` are called on the event loop and never wait.  Two threads offer what has come
together: "checker-results" without waiting for the disk, "checker-flips" durably.  A flip that the
log cannot take is kept and offered again, in order, for as long as it takes; results that find no
room are dropped and counted.  `_lock` guards the two buffers and the flags.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from healthmon.history.records import PROBE
from healthmon.history.records import record_of as result_record
from healthmon.probes.kind import Result
from healthmon.truth.changes import FLIP, Change
from healthmon.truth.changes import record_of as flip_record
from pipeline.engine import Engine
from pipeline.errors import Refused
from pipeline.record import Record
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

TENANT = "default"
RESULTS_EVERY_S = 1.0
RETRY_S = 1.0
# Of results that wait for their second: what one full stop of the engine may pile up.
MOST_RESULTS = 200_000
MOST_A_FRAME = 5_000

Found = tuple[int, str, int, Result]


class Outbound:
    """`count_dropped(reason, n)` hears of each result that will not be stored."""

    def __init__(
        self,
        *,
        engine: Callable[[], Engine],
        count_dropped: Callable[[str, int], None],
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._count_dropped = count_dropped
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._results: list[Found] = []
        self._flips: list[Change] = []
        self._flips_there = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failing = ""

    @property
    def waiting_results(self) -> int:
        return len(self._results)

    @property
    def waiting_flips(self) -> int:
        return len(self._flips)

    def result(self, target_id: int, target: str, at_us: int, result: Result) -> None:
        """Take in a result; `at_us` is when its probe began."""
        with self._lock:
            if len(self._results) < MOST_RESULTS:
                self._results.append((target_id, target, at_us, result))
                return
        self._count_dropped("checker_full", 1)

    def flip(self, change: Change) -> None:
        """Take in a change; it is in the log within moments."""
        with self._lock:
            self._flips.append(change)
        self._flips_there.set()

    def start(self) -> None:
        for name, run in (("results", self._run_results), ("flips", self._run_flips)):
            thread = threading.Thread(target=run, name=f"checker-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Hand over what is held, and end; True when nothing is left here."""
        until = self._clock.monotonic() + deadline_s
        self._stopping.set()
        self._flips_there.set()
        for thread in self._threads:
            thread.join(max(0.0, until - self._clock.monotonic()))
        self._threads = []
        with self._lock:
            flips, results = len(self._flips), len(self._results)
        if flips:
            logger.error("flips were not logged; they are found again by the next checker",
                         extra={"flips": flips})  # fmt: skip
        return not flips and not results

    # --- results ---------------------------------------------------------------------------

    def _run_results(self) -> None:
        while not self._stopping.wait(RESULTS_EVERY_S):
            self.flush_results()
        self.flush_results()

    def flush_results(self) -> None:
        """Offer every result held, in frames of up to MOST_A_FRAME."""
        with self._lock:
            found, self._results = self._results, []
        for start in range(0, len(found), MOST_A_FRAME):
            chunk = found[start : start + MOST_A_FRAME]
            try:
                self._offer(PROBE, [result_record(*one) for one in chunk], durable=False)
            except Exception as error:  # the thread must outlive whatever a result holds
                refused = isinstance(error, Refused)
                self._count_dropped("log_refused" if refused else "unreadable", len(chunk))
                self._say(error)

    # --- flips -----------------------------------------------------------------------------

    def _run_flips(self) -> None:
        while True:
            self._flips_there.wait()
            self._flips_there.clear()
            while not self.flush_flips():
                # Short of the stop, it waits for the log for as long as it takes.
                if self._stopping.wait(RETRY_S):
                    self.flush_flips()
                    return
            if self._stopping.is_set():
                return

    def flush_flips(self) -> bool:
        """Log every flip held; False when the log did not take one, which is kept with the rest."""
        while True:
            with self._lock:
                chunk = self._flips[:MOST_A_FRAME]
            if not chunk:
                return True
            try:
                self._offer(FLIP, [flip_record(change) for change in chunk], durable=True)
            except Exception as error:  # kept, and tried again: a flip is given up for nothing
                self._say(error)
                return False
            with self._lock:
                del self._flips[: len(chunk)]
            if self._failing:
                self._failing = ""
                logger.info("the log takes what the checker finds again")

    def _offer(self, type: str, records: Sequence[Record], *, durable: bool) -> None:
        self._engine().offer(
            type=type, tenant=TENANT, records=records, durable=durable, sheddable=False
        )

    def _say(self, error: Exception) -> None:
        """Once for as long as it fails in the same way."""
        if self._failing == str(error):
            return
        self._failing = str(error)
        odd = None if isinstance(error, Refused) else error
        logger.error("the log does not take what the checker finds: %s", error, exc_info=odd)
