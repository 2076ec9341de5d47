"""Reading ahead: what of a sink's log is read into the tenants' queues before a batch takes it.

So much that tenants can take turns, and not more, as it is in memory: a few batches of what may go,
and besides, within a bound of its own, what is held back, so that those behind it in the log can
go on.

A passive object, guarded by the pipeline's lock.
"""

from __future__ import annotations

from pipeline.batching.fairness import FairQueue
from pipeline.log.cursor import Cursor
from pipeline.log.log import Log
from pipeline.record import Part
from pipeline.settings import PipelineSettings

MIB = 1024 * 1024
# What is read ahead of the batches (bytes), if a batch is not larger.
AHEAD_BYTES = 8 * MIB
# What is read of tenants that are held back.
PARKED_BYTES = 64 * MIB
PARKED_RECORDS = 200_000
# How many frames may be delivered beyond one that is held back, as each is remembered till then.
REMEMBERED_FRAMES = 20_000
# Records of each partition, on the average.
PARTITION_RECORDS = 100


class ReadAhead:
    """See the module's text.  `max_records` is the count at which a batch closes."""

    def __init__(self, *, log: Log, cursor: Cursor, queue: FairQueue) -> None:
        self._log = log
        self._cursor = cursor
        self._queue = queue
        self.max_records = 1
        self._max_bytes = 1
        self._partitions = 0

    def configure(self, settings: PipelineSettings) -> None:
        self._max_bytes = settings.max_bytes
        partitioned = settings.partition_by == "tenant"
        self._partitions = settings.max_partitions if partitioned else 0

    @property
    def free_records(self) -> int:
        """Records that were read and may be taken."""
        return self._queue.records - self._queue.parked_records

    @property
    def free_bytes(self) -> int:
        """As `free_records`, in bytes."""
        return self._queue.nbytes - self._queue.parked_bytes

    @property
    def room(self) -> tuple[int, int] | None:
        """How much may be read, in records and bytes; None for nothing."""
        queue = self._queue
        if queue.parked_records >= PARKED_RECORDS or queue.parked_bytes >= PARKED_BYTES:
            return None
        records = max(2 * self.max_records, PARTITION_RECORDS * self._partitions)
        nbytes = max(AHEAD_BYTES, 2 * self._max_bytes)
        records, nbytes = records - self.free_records, nbytes - self.free_bytes
        return (records, nbytes) if records > 0 and nbytes > 0 else None

    @property
    def wanted(self) -> bool:
        """Whether less than a batch is at hand, so that what is in the files has to be loaded."""
        return (
            self.free_records < self.max_records
            and self.free_bytes < self._max_bytes
            and self.room is not None
        )

    @property
    def stands(self) -> bool:
        """Whether so much was delivered beyond what is held back that this has to move on."""
        return self._queue.remembered >= REMEMBERED_FRAMES and self._queue.parked_records > 0

    def read(self) -> set[str]:
        """Read what is at hand, as far as there is room; returns whose it was."""
        room = self.room
        if not self._cursor.overtaking and (self._cursor.head is None or room is None):
            return set()
        overtaking, line = self._log.read_many(self._cursor, *(room or (0, 0)))
        taken = [(frame, share, True) for frame, share in overtaking]
        taken += [(frame, share, False) for frame, share in line]
        if overtaking and line:
            taken.sort(key=lambda one: one[0].position)  # who came first has the first turn
        for frame, share, overtaken in taken:
            self._queue.add(Part.unread(frame, share), overtaken=overtaken)
        return {frame.tenant for frame, _, _ in taken}

    def read_overtaking(self) -> None:
        """Read what has overtaken the line, and nothing of the line."""
        for frame, share in self._log.read_many(self._cursor, 0, 0)[0]:
            self._queue.add(Part.unread(frame, share), overtaken=True)
