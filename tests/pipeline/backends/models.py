"""How back ends answer: a function of the batch, of how many are under way, and of the time.

Each is given a seeded source of chance, so that a run is the same every time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Answer:
    """What becomes of one write: how long it takes, and whether the batch is stored."""

    seconds: float
    stored: bool = True


class Backend(Protocol):
    def answer(self, count: int, under_way: int, now: float) -> Answer:
        """`under_way` counts this write too; `now` is when it begins."""


@dataclass(frozen=True)
class Constant:
    """A cost of every batch and one of every record, always the same."""

    batch_s: float = 0.05
    record_s: float = 0.0

    def answer(self, count: int, under_way: int, now: float) -> Answer:
        return Answer(self.batch_s + self.record_s * count)


class Jittery:
    """Like another, but for a factor around 1 that varies from write to write."""

    def __init__(self, inner: Backend, *, sigma: float = 0.3, seed: int = 1) -> None:
        self._inner, self._sigma, self._random = inner, sigma, random.Random(seed)

    def answer(self, count: int, under_way: int, now: float) -> Answer:
        inner = self._inner.answer(count, under_way, now)
        return Answer(inner.seconds * self._random.lognormvariate(0.0, self._sigma), inner.stored)


class Dropping:
    """Like another, but for a share of the writes that fail."""

    def __init__(self, inner: Backend, *, share: float, seed: int = 1) -> None:
        self._inner, self._share, self._random = inner, share, random.Random(seed)

    def answer(self, count: int, under_way: int, now: float) -> Answer:
        inner = self._inner.answer(count, under_way, now)
        return Answer(inner.seconds, self._random.random() >= self._share)


@dataclass(frozen=True)
class Knee:
    """Does so many writes at once; those above queue up, and all of them take longer."""

    writes: int
    inner: Backend

    def answer(self, count: int, under_way: int, now: float) -> Answer:
        inner = self.inner.answer(count, under_way, now)
        return Answer(inner.seconds * max(1.0, under_way / self.writes), inner.stored)


@dataclass(frozen=True)
class Refusing:
    """Refuses what is more than so many writes at once, as a server with 429 does."""

    writes: int
    inner: Backend

    def answer(self, count: int, under_way: int, now: float) -> Answer:
        if under_way > self.writes:
            return Answer(0.005, stored=False)
        return self.inner.answer(count, under_way, now)


@dataclass(frozen=True)
class LargeOnesAreSlow:
    """Above so many records a batch takes the square of its size."""

    records: int
    inner: Backend

    def answer(self, count: int, under_way: int, now: float) -> Answer:
        inner = self.inner.answer(count, under_way, now)
        return Answer(inner.seconds * max(1.0, count / self.records) ** 2, inner.stored)


@dataclass(frozen=True)
class Changing:
    """One back end until a time, another from then on."""

    at_s: float
    before: Backend
    after: Backend

    def answer(self, count: int, under_way: int, now: float) -> Answer:
        return (self.before if now < self.at_s else self.after).answer(count, under_way, now)


Models = dict[str, Callable[[], Backend]]
