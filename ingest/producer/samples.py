"""Owns: what is looked at: the run's figures at one moment, the line that tells of two, a history.

Taken and read on the command's main thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The counts since the start and the state of the queue, at `at_s` (monotonic seconds)."""

    at_s: float
    produced: int
    processed: int
    batches: int
    refused: int
    retries: int
    held: int
    capacity: int
    workers: int
    busy: int
    batch_limit: int
    pause_s: float

    @property
    def usage(self) -> float:
        """How full the queue is, 0 to 1."""
        return self.held / self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What happened between two samples."""

    produced_per_s: float
    processed_per_s: float
    mean_batch: float  # records; 0 where no batch was processed


def rates(before: Sample, after: Sample) -> Rates:
    seconds = max(after.at_s - before.at_s, 1e-9)
    records, batches = after.processed - before.processed, after.batches - before.batches
    return Rates(
        produced_per_s=(after.produced - before.produced) / seconds,
        processed_per_s=records / seconds,
        mean_batch=records / batches if batches else 0.0,
    )


def metrics_line(before: Sample, after: Sample) -> str:
    """`[METRICS] Produced=1477/s | Processed=150/s | Queue=1277/1500 | Workers=2`"""
    between = rates(before, after)
    return (
        f"[METRICS] Produced={between.produced_per_s:.0f}/s"
        f" | Processed={between.processed_per_s:.0f}/s"
        f" | Queue={after.held}/{after.capacity} | Workers={after.workers}"
    )


class History:
    """The samples of the last while, the oldest forgotten, and the rates between them.

    A rate is taken over `span` samples, so that a batch that comes whole is no peak.
    """

    def __init__(self, *, keep: int, span: int) -> None:
        self._samples: deque[Sample] = deque(maxlen=keep + span)
        self._span = span

    def add(self, sample: Sample) -> None:
        self._samples.append(sample)

    @property
    def samples(self) -> list[Sample]:
        return list(self._samples)

    @property
    def latest(self) -> Sample:
        return self._samples[-1]

    @property
    def rates(self) -> list[Rates]:
        """One for each sample but the first."""
        samples = self.samples
        return [
            rates(samples[max(0, index - self._span)], samples[index])
            for index in range(1, len(samples))
        ]
