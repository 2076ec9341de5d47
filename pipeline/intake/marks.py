"""What a usage means: from which share of its capacity on a sink hints, sheds and refuses.

Pure; whoever holds a sink's `Marks` guards what follows from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.record import DEBUG, ERROR, INFO, WARN
from pipeline.settings import PipelineSettings

_SEVERITIES = {"DEBUG": DEBUG, "INFO": INFO, "WARN": WARN, "ERROR": ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The marks of one sink, each a usage: held over capacity, of whichever is scarcer.

    `steps` are the severities below which records are shed, one after the other.
    """

    hint: float
    refuse: float
    admit: float
    shed: float = math.inf
    steps: tuple[int, ...] = ()

    @classmethod
    def of(cls, settings: PipelineSettings) -> Marks:
        last = _SEVERITIES[settings.shed_below]
        shed = settings.shed_watermark
        return cls(
            hint=settings.hint_watermark,
            refuse=settings.high_watermark,
            admit=settings.low_watermark,
            shed=math.inf if shed is None else shed,
            steps=tuple(severity for severity in _SEVERITIES.values() if severity <= last),
        )

    @property
    def first(self) -> float:
        """Below this usage none of them means anything, but for what the last refusal left."""
        return min(self.hint, self.shed, self.refuse)

    def shed_below(self, usage: float) -> int:
        """The severity (an OpenTelemetry number) below which records are shed; 0 for none.

        The lowest level goes at the mark, the others in equal steps until refusals begin, or, from
        a mark above that, until the sink is full.
        """
        if usage < self.shed:
            return 0
        end = self.refuse if self.shed < self.refuse else 1.0
        step = (end - self.shed) / len(self.steps)
        if step <= 0:
            return self.steps[-1]
        # A usage that is a step's own, but for the rounding, has reached it.
        reached = int((usage - self.shed) / step + 1e-9)
        return self.steps[min(reached, len(self.steps) - 1)]
