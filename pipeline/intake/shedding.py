"""Shedding: which records of an offer are dropped before they are taken in, and by which sinks.

A sink above its shed mark takes no records of the lowest levels.  Records that no sink takes for
that reason are not appended at all; others only count as dropped for the sinks that shed them.
Request threads only; the marks are read once an offer, so that all of it meets the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.record import Record

if TYPE_CHECKING:
    from pipeline.pipeline import Pipeline


class Shedding:
    """What the sinks of one offer shed of it.

    `kept` are the records that are offered all the same, `everywhere` how many are not.
    """

    __slots__ = ("_least", "_shed", "everywhere", "kept")

    def __init__(
        self, *, least: dict[Pipeline, int], records: Sequence[Record], kept: Sequence[Record]
    ) -> None:
        self._least = least
        self.kept = kept
        self.everywhere = len(records) - len(kept)
        self._shed = [
            (pipeline, found)
            for pipeline, level in least.items()
            if (found := [r for r in pipeline.spec.route.passing(records) if r.severity < level])
        ]

    def least(self, pipeline: Pipeline) -> int:
        """The lowest severity that a sink takes now."""
        return self._least[pipeline]

    def tell(self, tenant: str) -> None:
        """The rest of the offer was taken: count what was shed."""
        for pipeline, records in self._shed:
            pipeline.shed(tenant, records)


def shed(targets: tuple[Pipeline, ...], records: Sequence[Record]) -> Shedding | None:
    """What is shed of an offer; None when nothing is, which is nearly always."""
    for pipeline in targets:
        if pipeline.admission.shed_below:
            break
    else:
        return None
    least = {p: max(p.spec.route.min_severity, p.admission.shed_below) for p in targets}
    # Severity is a threshold: what the most lenient sink takes is kept, and what no route takes
    # was not shed.
    floor, routed = min(least.values()), min(p.spec.route.min_severity for p in targets)
    kept = [r for r in records if r.severity >= floor or r.severity < routed]
    return Shedding(least=least, records=records, kept=kept)
