"""The manifest: which records each unsettled batch is made of, noted before its first attempt.

Batch numbers are unique within the log, for all its sinks together, so `(log_id, number)` names
one delivery's content for ever.  A split notes its children before the parent goes.  `reads`
tells for each sink where the records begin that were never in a batch, and `ahead` what of the
frames beyond that was in one all the same, as tenants take turns.  Guarded by the log's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.record import Part

Extent = tuple[int, int, int]  # a frame's position, the first record of the share, how many
Read = tuple[int, int]  # a frame's position, and how many records of the share were read


class Manifest:
    """The batches that were formed and have not settled."""

    def __init__(self) -> None:
        self.next_number = 1
        self.reads: dict[str, Read] = {}
        # By sink and position: how many records of the share, from its first.  What is below the
        # sink's read means nothing, and goes now and then.
        self._ahead: dict[str, dict[int, int]] = {}
        self._entries: dict[int, tuple[str, tuple[Extent, ...]]] = {}

    def add(self, sink: str, parts: Iterable[Part]) -> int:
        """Note a batch of `parts` for `sink`; returns its number."""
        number = self.next_number
        self.note(number, sink, extents_of(parts))
        return number

    def note(self, number: int, sink: str, extents: Sequence[Extent]) -> None:
        """Note a batch by a number that it has already."""
        self.next_number = max(self.next_number, number + 1)
        self._entries[number] = (sink, tuple(extents))

    def advance(self, sink: str, extents: Iterable[Extent], read: Read) -> None:
        """A sink has read up to `read`, and beyond that the records of `extents`."""
        low, offset = read
        before, taken = self.reads.get(sink, (-1, 0))
        if low == before:
            offset = max(offset, taken)
        ahead = self._ahead.get(sink)
        beyond = {position: start + n for position, start, n in extents if position >= low}
        if beyond:
            if ahead is None:
                ahead = self._ahead[sink] = {}
            ahead.update(beyond)
        if ahead:
            # It may have been taken of before it came to be the first.
            offset = max(offset, ahead.pop(low, 0))
            if ahead and next(iter(ahead)) < low:
                self._ahead[sink] = {p: n for p, n in ahead.items() if p > low}
        self.reads[sink] = (low, offset)

    def taken(self, sink: str, position: int) -> int:
        """How many records of a sink's share of a frame that it has not read were in batches."""
        low, offset = self.reads.get(sink, (-1, 0))
        if position == low:
            return offset
        ahead = self._ahead.get(sink)
        return ahead.get(position, 0) if ahead and position > low else 0

    def ahead(self) -> dict[str, dict[int, int]]:
        """What sinks have taken beyond what they have read: records by position."""
        found = {}
        for sink, ahead in self._ahead.items():
            low = self.reads.get(sink, (-1, 0))[0]
            if beyond := {p: n for p, n in ahead.items() if p > low}:
                found[sink] = beyond
        return found

    def restore_ahead(self, ahead: dict[str, dict[int, int]]) -> None:
        """As a checkpoint has it."""
        self._ahead = {sink: dict(taken) for sink, taken in ahead.items()}

    def split(self, number: int, sink: str, children: list[list[Part]]) -> list[int]:
        """Note the children of a batch, then forget the batch; returns the children's numbers."""
        numbers = [self.add(sink, parts) for parts in children]
        self.settle(number)
        return numbers

    def settle(self, number: int) -> None:
        """Forget a batch whose records have all ended."""
        del self._entries[number]

    def forget(self, number: int) -> None:
        """Forget a batch that may have been forgotten before."""
        self._entries.pop(number, None)

    def entries(self, sink: str | None = None) -> dict[int, tuple[Extent, ...]]:
        """The unsettled batches of one sink, or of all, by number."""
        return {
            n: extents for n, (owner, extents) in self._entries.items() if sink in (None, owner)
        }

    def items(self) -> list[tuple[int, str, tuple[Extent, ...]]]:
        """Every unsettled batch: its number, its sink, its records."""
        return [(number, sink, extents) for number, (sink, extents) in self._entries.items()]

    def lowest(self, sink: str) -> int:
        """Below it every batch of the sink has settled."""
        own = (number for number, (owner, _) in self._entries.items() if owner == sink)
        return min(own, default=self.next_number)


def extents_of(parts: Iterable[Part]) -> tuple[Extent, ...]:
    return tuple((part.frame.position, part.start, part.count) for part in parts)
