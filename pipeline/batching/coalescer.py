"""Many increments as few: what the payloads of a batch add up to, key by key.

The log keeps each increment as a record of its own, so that an acknowledged one survives whatever
happens; they are added up when their batch is written, in the same transaction as its proof.  That
makes a total exactly-once without reading it before: a batch that is sent again is not added again.

Pure; it runs in the worker's thread that writes the batch, and locks nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(slots=True)
class Sum:
    """What the increments of one key come to, and how many they were."""

    total: int = 0
    count: int = 0


class Coalescer(Generic[KeyT]):
    """Adds up payloads as they come; `sums` is what they have come to.

    `read` tells the key and the amount of a payload, and raises ValueError for one that is no
    increment.  It is called once for each payload that differs from the others of an `add`:
    increments of a busy counter are the same bytes over and over, and are counted without being
    decoded.
    """

    def __init__(self, *, read: Callable[[bytes], tuple[KeyT, int]]) -> None:
        self._read = read
        self.sums: dict[KeyT, Sum] = {}

    def add(self, payloads: Iterable[bytes]) -> None:
        sums, read = self.sums, self._read
        for payload, times in Counter(payloads).items():
            key, amount = read(payload)
            held = sums.get(key)
            if held is None:
                held = sums[key] = Sum()
            held.total += amount * times
            held.count += times
