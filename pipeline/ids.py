"""Record ids: 63-bit numbers, ordered by time of arrival, unique across processes.

41 bits of milliseconds since 2025-01-01 UTC, 10 bits of the process's node number, 12 bits of
sequence.  A whole frame takes one run of consecutive ids; a run longer than the sequence goes on
in the milliseconds that follow, so that an id may be ahead of its time by that much.  Chosen over
UUIDv7 because it is the SQLite row id and an 8-byte key on PostgreSQL, and the range of a day is
a range of ids.

Within a node the step from one millisecond to the next skips the other nodes' numbers, so a run
is split by arithmetic: the n-th id of a run is `RecordIds.at(base, n)`.
One lock guards the last id given; it is never held during I/O.
"""

from __future__ import annotations

import threading

from pipeline.runtime.clock import Clock, SystemClock

EPOCH_US = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
NODE_BITS = 10
SEQUENCE_BITS = 12
NODES = 1 << NODE_BITS
_TIME_SHIFT = NODE_BITS + SEQUENCE_BITS
_SEQUENCE = (1 << SEQUENCE_BITS) - 1
_MAX_MS = (1 << 41) - 1


def first_id_at(us: int) -> int:
    """The lowest id of the millisecond that holds `us` (microseconds since 1970); 0 before 2025."""
    ms = (us - EPOCH_US) // 1000
    return min(max(ms, 0), _MAX_MS) << _TIME_SHIFT


def time_of(record_id: int) -> int:
    """The time of arrival that an id tells, in microseconds since 1970 (whole milliseconds)."""
    return (record_id >> _TIME_SHIFT) * 1000 + EPOCH_US


def node_of(record_id: int) -> int:
    """The node number inside an id."""
    return (record_id >> SEQUENCE_BITS) & (NODES - 1)


def id_at(base: int, index: int) -> int:
    """The id `index` places after `base` in its run."""
    sequence = (base & _SEQUENCE) + index
    if sequence <= _SEQUENCE:
        return base + index
    steps, sequence = divmod(sequence, _SEQUENCE + 1)
    return (base & ~_SEQUENCE) + (steps << _TIME_SHIFT) + sequence


def id_run(base: int, count: int) -> list[int] | range:
    """The ids of a run; a plain range where it stays within one millisecond."""
    if (base & _SEQUENCE) + count <= _SEQUENCE + 1:
        return range(base, base + count)
    return [id_at(base, index) for index in range(count)]


class RecordIds:
    """Gives out runs of ids for one node number; safe from any thread.

    `node` is below 1,024; no two processes that give ids at the same time may have the same.
    Raises ValueError for another.
    `not_before_us` is the time up to which an earlier holder of the node may have given ids
    (microseconds since 1970): nothing at or below it is given again, also after the clock was
    set back.
    """

    def __init__(self, *, node: int, clock: Clock | None = None, not_before_us: int = 0) -> None:
        if not 0 <= node < NODES:
            raise ValueError(f"node must be between 0 and {NODES - 1}, not {node}")
        self.node = node
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        # Counts (millisecond, sequence) as one number without the node bits.
        self._next = (max(not_before_us - EPOCH_US, -1000) // 1000 + 1) << SEQUENCE_BITS

    def take(self, count: int, *, now_us: int | None = None) -> int:
        """The base of a run of `count` ids, all later than any given before.

        `now_us` spares a look at the clock to whoever has just looked at it.
        """
        ms = ((self._clock.time_us() if now_us is None else now_us) - EPOCH_US) // 1000
        with self._lock:
            start = ms << SEQUENCE_BITS
            if start < self._next:
                start = self._next
            self._next = start + count
        return (
            ((start >> SEQUENCE_BITS) << _TIME_SHIFT)
            | (self.node << SEQUENCE_BITS)
            | (start & _SEQUENCE)
        )

    @property
    def reserved_until_us(self) -> int:
        """The time that the next id would carry, at least (microseconds since 1970)."""
        with self._lock:
            return (self._next >> SEQUENCE_BITS) * 1000 + EPOCH_US
