"""The routing table and the room that an offer takes: which pipelines take it, all or none.

Request threads only.  The table is replaced whole when the pipelines change, so that offers read
it without a lock; whoever finds a gap fills it under the lock that guards the pipelines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import NoSink
from pipeline.log.frame import Share
from pipeline.record import Record, encoded_weight, payload_bytes

if TYPE_CHECKING:
    from pipeline.intake.shedding import Shedding
    from pipeline.pipeline import Pipeline

ROUTES_CACHED = 10_000


class Routed:
    """Where an offer goes: a share for each pipeline with room, the optional ones that are full
    with what they would have taken, and how many records no sink takes.  `owed` counts the
    required sinks, `promised` the records that the one of them with the most of them takes."""

    __slots__ = ("_tenant", "full", "nowhere", "owed", "pipelines", "promised", "shares")

    def __init__(self, *, nowhere: int, tenant: str) -> None:
        self.nowhere = nowhere
        self._tenant = tenant
        self.owed = self.promised = 0
        self.full: list[tuple[Pipeline, Sequence[Record]]] = []
        self.pipelines: list[Pipeline] = []
        self.shares: list[Share] = []

    def give_back(self) -> None:
        """The room that was taken is not used."""
        for pipeline, share in zip(self.pipelines, self.shares, strict=True):
            pipeline.give_back(share.count, share.nbytes, tenant=self._tenant)

    def left_out(self, records: Sequence[Record]) -> list[Record]:
        """The records that pass no route."""
        taking = [pipeline.spec.route for pipeline in self.pipelines]
        taking += [pipeline.spec.route for pipeline, _ in self.full]
        return [r for r in records if not any(r.severity >= t.min_severity for t in taking)]


class RoutingTable:
    """The pipelines by type and tenant; `pipelines` tells them, with `lock` held."""

    def __init__(self, lock: threading.Lock, pipelines: Callable[[], Iterable[Pipeline]]) -> None:
        self._lock = lock
        self._pipelines = pipelines
        self._routes: dict[tuple[str, str], tuple[Pipeline, ...]] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def clear(self) -> None:
        """The pipelines or their routes have changed; `lock` is held."""
        self._routes = {}

    def targets(self, type: str, tenant: str) -> tuple[Pipeline, ...]:
        """The pipelines that may take such records, the required ones first.  Raises NoSink."""
        targets = self._routes.get((type, tenant))
        if targets is not None:
            return targets
        with self._lock:
            pipelines = list(self._pipelines())
            # Only required sinks refuse; after that an optional one would have dropped in vain.
            found = [p for p in pipelines if p.spec.route.takes(type, tenant)]
            if all(p.spec.internal for p in pipelines) and all(p.spec.listens for p in found):
                raise NoSink("no sink is configured: add one in the admin", retry_after_s=5.0)
            targets = tuple(sorted(found, key=_optional))
            if len(self._routes) >= ROUTES_CACHED:
                self._routes = {}
            self._routes[type, tenant] = targets
        return targets


def reserve(
    targets: tuple[Pipeline, ...],
    records: Sequence[Record],
    payload: bytes,
    *,
    tenant: str,
    shedding: Shedding | None = None,
) -> Routed:
    """Room in every pipeline that takes some of the records, or none anywhere.

    What a sink sheds of them is left out.  Raises Saturated, TooLarge, or Closed when a target
    takes nothing any more.
    """
    count, total = len(records), payload_bytes(payload, len(records))
    routed = Routed(nowhere=count, tenant=tenant)
    try:
        for pipeline in targets:
            spec = pipeline.spec
            least = spec.route.min_severity if shedding is None else shedding.least(pipeline)
            # Weighed by themselves, as the limit of a batch's bytes is kept by this.
            passing = [one for one in records if one.severity >= least] if least else records
            wanted = len(passing)
            if not wanted:
                continue
            # Severity is a threshold: what the lowest of them lets pass goes somewhere.
            routed.nowhere = min(routed.nowhere, count - wanted)
            nbytes = total if wanted == count else encoded_weight(passing)
            if spec.required:
                pipeline.admission.reserve(wanted, nbytes, tenant=tenant)
                routed.owed += 1
                if wanted > routed.promised:
                    routed.promised = wanted
            elif not pipeline.make_room(wanted, nbytes, tenant=tenant):
                routed.full.append((pipeline, passing))
                continue
            routed.pipelines.append(pipeline)
            routed.shares.append(
                Share(
                    sink=spec.key,
                    count=wanted,
                    nbytes=nbytes,
                    min_severity=least if wanted < count else 0,
                    required=spec.required,
                )
            )
    except BaseException:
        routed.give_back()
        raise
    return routed


def _optional(pipeline: Pipeline) -> bool:
    return not pipeline.spec.required
