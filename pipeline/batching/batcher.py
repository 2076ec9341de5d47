"""The batcher: closes a batch when it is full, has waited long enough, or is asked to.

A passive object, called by whichever worker is about to take a batch, under its pipeline's lock.
While one tenant alone has anything waiting, its frames are read from the log only when a batch
closes; otherwise they are read into queues by tenant, a few batches ahead, and take turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipeline.batching.ahead import ReadAhead
from pipeline.batching.fairness import FairQueue, fitting_of
from pipeline.log.cursor import Cursor
from pipeline.log.frame import Frame
from pipeline.log.log import Log
from pipeline.log.manifest import Read
from pipeline.record import Part
from pipeline.settings import PipelineSettings

# One batch of so many may be one of newcomers alone.
TURN_EVERY = 4


class Batcher:
    """Cuts one sink's frames into batches of at most `max_records` and `max_bytes`.

    A single record larger than `max_bytes` becomes a batch of its own.  The reason of a batch is
    size, bytes, time, flush, shutdown, turn: tenants that had nothing waiting go ahead of a backlog
    by themselves, as a small batch is written soon; or partitions: there were too many of them, or
    too much in them, and one had to go early.
    """

    def __init__(self, *, log: Log, cursor: Cursor, settings: PipelineSettings) -> None:
        self._log = log
        self._cursor = cursor
        self._settings = settings
        # The count at which a batch closes, where that is not the settings' own.
        self._limit: int | None = None
        self._queue = FairQueue()
        self._ahead = ReadAhead(log=log, cursor=cursor, queue=self._queue)
        self._flush_below = 0
        # How many batches there have been since one was of newcomers alone.
        self._since_turn = TURN_EVERY
        self.configure(settings)

    def configure(self, settings: PipelineSettings) -> None:
        self._settings = settings
        # Whether each tenant's records have a time of their own.
        self._apart = settings.ordered or self._partitioned
        self._queue.track_ages(self._apart)
        self._ahead.configure(settings)
        self._ahead.max_records = self.max_records
        self._look_for_full(self._queue.tenants)

    @property
    def _partitioned(self) -> bool:
        return self._settings.partition_by == "tenant"

    def resize(self, max_records: int | None) -> None:
        """Close batches at this count from now on; None: at the settings' own."""
        shrinks = self._limit is not None and max_records is not None and max_records < self._limit
        self._limit = max_records
        self._ahead.max_records = self.max_records
        if shrinks:
            self._look_for_full(self._queue.tenants)

    @property
    def max_records(self) -> int:
        """The count at which a batch closes."""
        return self._settings.max_records if self._limit is None else self._limit

    def park(self, tenants: Iterable[str]) -> None:
        """Hold the records of these tenants back until they are released."""
        self._queue.park(tenants)

    def release(self, tenants: Iterable[str]) -> None:
        """Let these tenants' records go on."""
        tenants = list(tenants)
        self._queue.release(tenants)
        self._look_for_full(tenants)

    # --- what waits ------------------------------------------------------------------------

    @property
    def waiting_records(self) -> int:
        return self._cursor.unread_records + self._queue.records

    @property
    def waiting_bytes(self) -> int:
        return self._cursor.unread_bytes + self._queue.held_bytes

    def waiting_by_tenant(self) -> Counter[str]:
        """Records not yet in a batch, by tenant; the log's lock must be held."""
        return Counter(self._cursor.unread_tenants) + self._queue.by_tenant()

    @property
    def full(self) -> bool:
        """Whether a batch can close for its size alone, as far as can be told without a look.

        What is held back fills none.
        """
        records, nbytes = self._ahead.free_records, self._ahead.free_bytes
        if not self._queue.parked_records:
            records += self._cursor.unread_records
            nbytes += self._cursor.unread_bytes
        return records >= self.max_records or nbytes >= self._settings.max_bytes

    def oldest_arrival_s(self) -> float | None:
        """When the oldest waiting record arrived, on the monotonic clock."""
        head, queued = self._cursor.head, self._queue.oldest_s()
        if head is None or queued is None:
            return queued if head is None else head.arrived_s
        return min(queued, head.arrived_s)

    def waiting_since_s(self) -> float | None:
        """Like `oldest_arrival_s`; of a frame that has to be loaded first, about when it came."""
        oldest, behind = self.oldest_arrival_s(), self._cursor.behind_since_s
        if self._cursor.head is None and self._cursor.line_frames > 0 and behind is not None:
            return behind if oldest is None else min(oldest, behind)
        return oldest

    def head_file(self) -> int:
        """The log's file that the first waiting frame is in, -1 for none."""
        first = self._first()
        return first.file if first else -1

    def _first(self) -> Frame | None:
        """The frame that came first, of those at hand."""
        head, queued = self._cursor.head, self._queue.first()
        if head is None or queued is None:
            return head or (queued.frame if queued else None)
        return min(head, queued.frame, key=lambda frame: frame.position)

    def lowest_position(self) -> int | None:
        """The position of the first waiting frame, or one below it where that is in the files."""
        first = self._first()
        if self._cursor.head is None and self._cursor.line_frames > 0:
            behind = self._cursor.next_load
            return behind if first is None else min(behind, first.position)
        return first.position if first else None

    @property
    def read(self) -> Read:
        """Where the first record stands that is in no batch yet; what was read ahead is not."""
        line = self._cursor.next_position
        return self._queue.low(line) or (line, 0)

    @property
    def lags(self) -> bool:
        """Whether what comes next has to be loaded from the log's files first."""
        cursor = self._cursor
        return cursor.head is None and cursor.line_frames > 0 and self._ahead.wanted

    def fill(self) -> tuple[Counter[str], int]:
        """Load about as much as a batch takes; see `Log.fill`.  Does I/O."""
        return self._log.fill(self._cursor, self._settings.max_bytes)

    # --- when a batch closes ---------------------------------------------------------------

    def flush_below(self, position: int) -> None:
        """Close batches at once until every frame below `position` has left."""
        self._flush_below = max(self._flush_below, position)

    def due_s(self, now: float, *, shutdown: bool) -> float | None:
        """Seconds until a batch may close: 0 for now, None while nothing waits."""
        if self._apart:
            return self._due_apart_s(now, shutdown=shutdown)
        oldest = self.oldest_arrival_s()
        if oldest is None:
            if not self._cursor.overtaking:
                return None
            oldest = self._cursor.overtaking[0].arrived_s
        if shutdown or self.full or self._flush_wanted():
            return 0.0
        return max(0.0, oldest + self._settings.max_wait_s - now)

    def _due_apart_s(self, now: float, *, shutdown: bool) -> float | None:
        """As `due_s`, of the tenants that may go."""
        self._read_ahead()
        oldest = self._queue.oldest_free_s()
        if oldest is None:
            return None
        if shutdown or self._flush_wanted():
            return 0.0
        if self._partitioned:
            if self._crowded or self._find_full() is not None:
                return 0.0
        elif self.full:
            return 0.0
        return max(0.0, oldest + self._settings.max_wait_s - now)

    def _flush_wanted(self) -> bool:
        lowest = self.lowest_position()
        return lowest is not None and lowest < self._flush_below

    @property
    def _crowded(self) -> bool:
        """Whether a partition has to go early."""
        return len(self._queue) > self._settings.max_partitions or self._ahead.room is None

    def _find_full(self) -> str | None:
        return self._queue.find_full(self.max_records, self._settings.max_bytes)

    def _look_for_full(self, tenants: Iterable[str]) -> None:
        if self._partitioned:
            self._queue.look_for_full(tenants, self.max_records, self._settings.max_bytes)

    # --- reading and taking ----------------------------------------------------------------

    def _read_ahead(self) -> bool:
        """Read what is at hand into the tenants' queues; returns whether there was anything."""
        tenants = self._ahead.read()
        self._look_for_full(tenants)
        return bool(tenants)

    def take(self, *, shutdown: bool) -> tuple[list[Part], str]:
        """The parts of the next batch and what closed it; only to be called when one is due."""
        reason = self._reason(shutdown)
        if self._partitioned:
            parts, closed_by = self._take_partition(reason)
        elif not self._apart and self._alone:
            parts, closed_by = self._take_in_line()
        else:
            backlog = reason in ("size", "bytes") and self._more_than_one
            parts, closed_by = self._take_in_turns(backlog=backlog)
        return parts, closed_by or reason

    @property
    def stands(self) -> bool:
        """Whether so much was delivered beyond what is held back that it has to move on."""
        return self._ahead.stands

    def take_held_back(self) -> list[Part]:
        """The parts of a batch of the tenant that is held back and was first, to be sent later."""
        first = self._queue.first()
        if first is None:
            return []
        limits = self.max_records, self._settings.max_bytes
        return self._queue.take_of(first.tenant, *limits)[0]

    def formed(self) -> None:
        """What was taken is in the manifest."""
        self._cursor.queued_bytes = self._queue.nbytes

    def _reason(self, shutdown: bool) -> str:
        """What closes a batch that takes all that waits."""
        if shutdown:
            return "shutdown"
        if self._flush_wanted():
            return "flush"
        if not self.full:
            return "time"
        # What is left of a frame that was read in part weighs about so much until it is decoded.
        return "size" if self.waiting_records >= self.max_records else "bytes"

    @property
    def _alone(self) -> bool:
        """Whether all that waits is one tenant's, so that there are no turns to take."""
        cursor, queue = self._cursor, self._queue
        if cursor.overtaking or len(queue) > 1 or len(cursor.unread_tenants) > 1:
            return False
        if not queue.records:
            return True
        return not cursor.unread_tenants or queue.tenants == list(cursor.unread_tenants)

    @property
    def _more_than_one(self) -> bool:
        """Whether what waits is more than the next batch takes."""
        nbytes = self._cursor.unread_bytes + self._queue.nbytes
        return self.waiting_records > self.max_records or nbytes > self._settings.max_bytes

    def _take_in_turns(self, *, backlog: bool) -> tuple[list[Part], str]:
        parts: list[Part] = []
        self._since_turn += 1
        if backlog and self._since_turn >= TURN_EVERY:
            self._read_ahead()
            if self._queue.newcomers:
                limits = self.max_records, self._settings.max_bytes
                parts, closed_by = self._queue.take(*limits, newcomers=True)
                if parts:
                    self._since_turn = 0
                    return sorted(parts, key=_position), closed_by or "turn"
        room_records, room_bytes = self.max_records, self._settings.max_bytes
        closed_by = ""
        while not closed_by:
            more = self._read_ahead()
            taken, closed_by = self._queue.take(room_records, room_bytes, first=not parts)
            parts += taken
            room_records -= sum(part.count for part in taken)
            room_bytes -= sum(part.nbytes for part in taken)
            if not more:
                break
        parts.sort(key=_position)  # as whoever delivers it after a crash will read it
        return parts, closed_by

    def _take_partition(self, reason: str) -> tuple[list[Part], str]:
        """A batch of one tenant: one that is full, or else the oldest."""
        self._read_ahead()
        tenant, closed_by = self._find_full(), ""
        if tenant is None and reason in ("size", "bytes"):
            reason = "time"  # all together are full, and none of them is
        if tenant is None and reason == "time" and self._crowded:
            closed_by = "partitions"
        if tenant is None:
            tenant = self._queue.oldest_free_tenant()
        assert tenant is not None, "a batch is taken only when one is due"
        parts, cut_by = self._queue.take_of(tenant, self.max_records, self._settings.max_bytes)
        return parts, cut_by or closed_by or reason

    def _take_in_line(self) -> tuple[list[Part], str]:
        """A batch of one tenant's frames as they stand in the log."""
        parts, closed_by = self._queue.take(self.max_records, self._settings.max_bytes)
        if closed_by:
            return parts, closed_by
        room_records = self.max_records - sum(part.count for part in parts)
        room_bytes = self._settings.max_bytes - sum(part.nbytes for part in parts)
        overtaking, line = self._log.read_many(self._cursor, room_records, room_bytes)
        for frame, share in overtaking:  # they have come this moment
            self._queue.add(Part.unread(frame, share), overtaken=True)
        for frame, share in line:
            part = Part.unread(frame, share)
            if closed_by:
                self._queue.add(part)
                continue
            if part.count <= room_records and part.nbytes <= room_bytes:
                parts.append(part)
                room_records -= part.count
                room_bytes -= part.nbytes
                continue
            fitting, closed_by = fitting_of(part, room_records, room_bytes)
            if not fitting and not parts:
                fitting = 1  # a record larger than a batch travels alone
            if fitting == part.count:
                parts.append(part)
            elif fitting:
                head, rest = part.split(fitting)
                parts.append(head)
                self._queue.add(rest)
            else:
                self._queue.add(part)
        if not closed_by and room_records <= 0:
            closed_by = "size"
        elif not closed_by and room_bytes <= 0:
            closed_by = "bytes"
        return parts, closed_by

    def take_oldest(self) -> Part | None:
        """The oldest waiting records, for a sink that has to let some go."""
        if self.lags:
            return None  # what is older than all that is at hand has to be loaded first
        self._ahead.read_overtaking()
        head, queued = self._cursor.head, self._queue.first()
        if queued is not None and (head is None or queued.frame.position < head.position):
            part = self._queue.take_first()
            self.formed()
            return part
        read = self._log.read(self._cursor)
        if read is None:
            return None
        frame, share = read
        return Part.unread(frame, share)

    def take_unlogged(self) -> list[Part]:
        """What was read and is in no file, as memory goes."""
        unlogged = self._queue.take_unlogged()
        self.formed()
        return unlogged


def _position(part: Part) -> int:
    return part.frame.position
