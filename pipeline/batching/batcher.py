"""The batcher: closes a batch when it is full, has waited long enough, or is asked to.

A passive object, called by whichever worker is about to take a batch, under its pipeline's lock.
It reads frames from the cursor only when it closes a batch, so nothing waits here but the rest
of a frame that was too large for the last one.
"""

from __future__ import annotations

from collections import Counter

from pipeline.log.cursor import Cursor
from pipeline.log.log import Log
from pipeline.record import Part
from pipeline.settings import PipelineSettings


class Batcher:
    """Cuts one sink's frames into batches of at most `max_records` and `max_bytes`.

    A single record larger than `max_bytes` becomes a batch of its own.  The reason of a batch is
    size, bytes, time, flush or shutdown.
    """

    def __init__(self, *, log: Log, cursor: Cursor, settings: PipelineSettings) -> None:
        self._log = log
        self._cursor = cursor
        self._settings = settings
        # The count at which a batch closes, where that is not the settings' own.
        self._limit: int | None = None
        self._rest: Part | None = None
        self._flush_below = 0

    def configure(self, settings: PipelineSettings) -> None:
        self._settings = settings

    def resize(self, max_records: int | None) -> None:
        """Close batches at this count from now on; None: at the settings' own."""
        self._limit = max_records

    @property
    def max_records(self) -> int:
        """The count at which a batch closes."""
        return self._settings.max_records if self._limit is None else self._limit

    @property
    def waiting_records(self) -> int:
        return self._cursor.unread_records + (self._rest.count if self._rest else 0)

    @property
    def waiting_bytes(self) -> int:
        return self._cursor.unread_bytes + (self._rest.nbytes if self._rest else 0)

    def waiting_by_tenant(self) -> Counter[str]:
        """Records not yet in a batch, by tenant; the log's lock must be held."""
        waiting = Counter(self._cursor.unread_tenants)
        if self._rest:
            waiting[self._rest.tenant] += self._rest.count
        return waiting

    @property
    def full(self) -> bool:
        """Whether a batch can close for its size alone."""
        return (
            self.waiting_records >= self.max_records
            or self.waiting_bytes >= self._settings.max_bytes
        )

    def oldest_arrival_s(self) -> float | None:
        """When the oldest waiting record arrived, on the monotonic clock."""
        if self._rest:
            return self._rest.frame.arrived_s
        head = self._cursor.head
        return head.arrived_s if head else None

    def waiting_since_s(self) -> float | None:
        """Like `oldest_arrival_s`; of a frame that has to be loaded first, about when it came."""
        oldest = self.oldest_arrival_s()
        if oldest is None and self._cursor.unread_frames:
            return self._cursor.behind_since_s
        return oldest

    def head_file(self) -> int:
        """The log's file that the first waiting frame is in, -1 for none."""
        head = self._rest.frame if self._rest else self._cursor.head
        return head.file if head else -1

    def lowest_position(self) -> int | None:
        """The position of the first waiting frame, or one below it where that is in the files."""
        if self.lags:
            return self._cursor.next_load
        head = self._rest.frame if self._rest else self._cursor.head
        return head.position if head else None

    @property
    def rest(self) -> Part | None:
        """What is left of the frame that the last batch ended in."""
        return self._rest

    @property
    def lags(self) -> bool:
        """Whether what comes next has to be loaded from the log's files first."""
        return self._rest is None and self._cursor.head is None and self._cursor.unread_frames > 0

    def fill(self) -> tuple[Counter[str], int]:
        """Load about as much as a batch takes; see `Log.fill`.  Does I/O."""
        return self._log.fill(self._cursor, self._settings.max_bytes)

    def flush_below(self, position: int) -> None:
        """Close batches at once until every frame below `position` has left."""
        self._flush_below = max(self._flush_below, position)

    def due_s(self, now: float, *, shutdown: bool) -> float | None:
        """Seconds until a batch may close: 0 for now, None while nothing waits."""
        oldest = self.oldest_arrival_s()
        if oldest is None:
            return None
        if shutdown or self.full or self._flush_wanted():
            return 0.0
        return max(0.0, oldest + self._settings.max_wait_s - now)

    def _flush_wanted(self) -> bool:
        lowest = self.lowest_position()
        return lowest is not None and lowest < self._flush_below

    def take(self, *, shutdown: bool) -> tuple[list[Part], str]:
        """The parts of the next batch and what closed it; only to be called when one is due."""
        reason = self._reason(shutdown)
        parts: list[Part] = []
        room_records, room_bytes = self.max_records, self._settings.max_bytes
        while room_records and room_bytes and (part := self._next_part()) is not None:
            if part.count <= room_records and part.nbytes <= room_bytes:
                parts.append(part)
                room_records -= part.count
                room_bytes -= part.nbytes
                continue
            fitting, closed_by = self._fitting(part, room_records, room_bytes)
            if not fitting and not parts:
                fitting = 1  # a record larger than a batch travels alone
            if fitting == part.count:
                parts.append(part)
            elif fitting:
                head, self._rest = part.split(fitting)
                parts.append(head)
            else:
                self._rest = part
            return parts, closed_by
        if room_records == 0:
            reason = "size"
        elif room_bytes == 0:
            reason = "bytes"
        return parts, reason

    def _reason(self, shutdown: bool) -> str:
        """What closes a batch that takes all that waits."""
        if shutdown:
            return "shutdown"
        if self._flush_wanted():
            return "flush"
        # The share of a sink that takes part of a frame is an estimate until it is read.
        return "bytes" if self.full else "time"

    def take_oldest(self) -> Part | None:
        """The oldest waiting records, for a sink that has to let some go."""
        return self._next_part()

    def _next_part(self) -> Part | None:
        if self._rest is not None:
            part, self._rest = self._rest, None
            return part
        read = self._log.read(self._cursor)
        if read is None:
            return None
        frame, share = read
        return Part.of_extent(frame, share, share.start, share.unread)

    @staticmethod
    def _fitting(part: Part, room_records: int, room_bytes: int) -> tuple[int, str]:
        """How many of the part's records fit, and which limit says so."""
        fitting = part.fitting(room_bytes)
        if fitting < min(room_records, part.count):
            return fitting, "bytes"
        return min(room_records, part.count), "size"
