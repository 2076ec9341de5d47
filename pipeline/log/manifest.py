"""The manifest: which records each unsettled batch is made of, noted before its first attempt.

Batch numbers are unique within the log, for all its sinks together, so `(log_id, number)` names
one delivery's content for ever.  A split notes its children before the parent goes.
Called by workers under their pipeline's lock; `_lock` guards the entries, as the pipelines of a
log share them.
"""

from __future__ import annotations

import itertools
import threading

from pipeline.record import Part

Extent = tuple[int, int, int]  # a frame's position, the first record of the share, how many


class Manifest:
    """The batches that were formed and have not settled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._entries: dict[int, tuple[str, tuple[Extent, ...]]] = {}

    def add(self, sink: str, parts: list[Part]) -> int:
        """Note a batch of `parts` for `sink`; returns its number."""
        extents = tuple((part.frame.position, part.start, part.count) for part in parts)
        with self._lock:
            number = next(self._numbers)
            self._entries[number] = (sink, extents)
        return number

    def split(self, number: int, sink: str, children: list[list[Part]]) -> list[int]:
        """Note the children of a batch, then forget the batch; returns the children's numbers."""
        numbers = [self.add(sink, parts) for parts in children]
        self.settle(number)
        return numbers

    def settle(self, number: int) -> None:
        """Forget a batch whose records have all ended."""
        with self._lock:
            del self._entries[number]

    def entries(self, sink: str) -> dict[int, tuple[Extent, ...]]:
        """The unsettled batches of one sink, by number."""
        with self._lock:
            return {n: extents for n, (owner, extents) in self._entries.items() if owner == sink}
