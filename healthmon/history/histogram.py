"""Latencies counted in logarithmic buckets: small, mergeable, quantiles within 4 %.

Bucket n holds what is above LOWEST_MS * GAMMA**(n-1) and at most LOWEST_MS * GAMMA**n; its middle
(by relative error) stands for all of it.  The first holds everything up to LOWEST_MS, the last
everything above an hour.  In bytes: for each bucket that holds anything, in ascending order, how
far it is from the one before and its count, both as LEB128 varints.  Pure; not shared by threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log

ERROR = 0.04
GAMMA = (1 + ERROR) / (1 - ERROR)
LOWEST_MS = 0.05
HIGHEST_MS = 3_600_000.0

_PER_LOG = 1 / log(GAMMA)
_OFFSET = 1 - log(LOWEST_MS) * _PER_LOG
LAST = int(log(HIGHEST_MS) * _PER_LOG + _OFFSET)
_MIDDLES = [LOWEST_MS * GAMMA**n * 2 / (GAMMA + 1) for n in range(LAST + 1)]
_MAX_BYTES = 4_096  # far more than all buckets with large counts; anything longer is not ours


class HistogramError(ValueError):
    """Bytes that are no histogram."""


def bucket_of(ms: float) -> int:
    """The bucket of a latency; what is no number counts as the lowest."""
    if not ms > LOWEST_MS:
        return 0
    if ms >= HIGHEST_MS:
        return LAST
    return int(log(ms) * _PER_LOG + _OFFSET)


class Histogram:
    """Counts by bucket."""

    __slots__ = ("counts",)

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts: dict[int, int] = {} if counts is None else counts

    @classmethod
    def of(cls, latencies_ms: Iterable[float]) -> Histogram:
        made = cls()
        for ms in latencies_ms:
            made.add(ms)
        return made

    @classmethod
    def merged(cls, parts: Iterable[bytes]) -> Histogram:
        made = cls()
        for part in parts:
            made.merge(part)
        return made

    def add(self, ms: float) -> None:
        bucket = bucket_of(ms)
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1

    def merge(self, data: bytes) -> None:
        """Add a histogram in bytes.  Raises HistogramError; nothing is added then."""
        counts = self.counts
        get = counts.get
        bucket = 0
        if len(data) & 1 or not data.isascii():
            self._merge_wide(data)
            return
        # Every number takes one byte: nearly all histograms of minutes, most of hours.
        if sum(data[::2]) > LAST:
            raise HistogramError("a histogram has buckets beyond the last")
        for step, count in zip(data[::2], data[1::2], strict=True):
            bucket += step
            counts[bucket] = get(bucket, 0) + count

    def _merge_wide(self, data: bytes) -> None:
        numbers = _numbers(data)
        if sum(numbers[::2]) > LAST:
            raise HistogramError("a histogram has buckets beyond the last")
        bucket = 0
        for step, count in zip(numbers[::2], numbers[1::2], strict=True):
            bucket += step
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def to_bytes(self) -> bytes:
        out = bytearray()
        before = 0
        for bucket in sorted(self.counts):
            count = self.counts[bucket]
            step, before = bucket - before, bucket
            if step < 128 and count < 128:
                out.append(step)
                out.append(count)
            else:
                _append(out, step)
                _append(out, count)
        return bytes(out)

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def quantile(self, q: float) -> float | None:
        """The latency that the share `q` of all is at most; None of an empty histogram."""
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Iterable[float]) -> list[float | None]:
        """Several quantiles in one pass, in the order given."""
        wanted = list(qs)
        total = self.count
        if not total:
            return [None] * len(wanted)
        # By the nearest rank: the smallest value that at least q of all are not above.
        ranks = [max(1, min(total, -int(-q * total // 1))) for q in wanted]
        found: list[float | None] = [None] * len(wanted)
        left = sorted(range(len(wanted)), key=ranks.__getitem__, reverse=True)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            while left and ranks[left[-1]] <= seen:
                found[left.pop()] = _MIDDLES[bucket]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}>"


def _append(out: bytearray, number: int) -> None:
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _numbers(data: bytes) -> list[int]:
    if len(data) > _MAX_BYTES:
        raise HistogramError(f"{len(data)} bytes are too many for a histogram")
    numbers, number, shift = [], 0, 0
    for byte in data:
        number |= (byte & 127) << shift
        if byte & 128:
            shift += 7
            if shift > 63:
                raise HistogramError("a number in a histogram has no end")
        else:
            numbers.append(number)
            number = shift = 0
    if shift or len(numbers) & 1:
        raise HistogramError("a histogram ends in the middle of a bucket")
    return numbers
