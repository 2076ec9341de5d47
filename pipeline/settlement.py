"""How records end: entered into the ledger, their room given back, and told to those who wait.

One per pipeline.  `settle`, `drop` and `pass_by` are called under the pipeline's lock and decide;
`tell_settled`, `tell_dropped` and `tell_receipts` are called without it and speak.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from pipeline import receipt
from pipeline.delivery.deliver import Outcome
from pipeline.figures import Figures
from pipeline.intake.admission import Admission
from pipeline.log.frame import Frame, Share
from pipeline.log.log import Log
from pipeline.observer import Observer
from pipeline.record import Batch, Part, Record

log = logging.getLogger(__name__)

Settled = tuple[Frame, Share]


class Settlement:
    """The ends of one sink's records; `key` is the sink's identity."""

    def __init__(
        self,
        *,
        key: str,
        journal: Log,
        admission: Admission,
        figures: Figures,
        observer: Observer,
    ) -> None:
        self._key = key
        self._log = journal
        self._admission = admission
        self._figures = figures
        self._observer = observer

    def settle(self, batch: Batch, outcome: Outcome) -> list[Settled]:
        """A batch has ended: stored, but for its failures.  Returns the shares that are done."""
        stored: Counter[str] = Counter()
        for part in batch.parts:
            stored[part.tenant] += part.count
        ledger, already = self._log.ledger, outcome.already_stored
        for part, count in batch.parts_of(outcome.failures).items():
            stored[part.tenant] -= count
            self._count_dropped(part, count, outcome.drop_reason)
        for tenant, count in stored.items():
            known = min(already, count)
            already -= known
            ledger.stored(self._key, tenant, known, already=True)
            ledger.stored(self._key, tenant, count - known)
        self._log.manifest.settle(batch.number)
        return self._let_go(batch.parts, drained=True)

    def drop(self, parts: list[Part], reason: str) -> list[Settled]:
        """Records end without being stored.  Returns the shares that are done."""
        for part in parts:
            self._count_dropped(part, part.count, reason)
        return self._let_go(parts, drained=False)

    def pass_by(self, tenant: str, count: int, reason: str) -> None:
        """Records were never taken in, for want of room in an optional sink."""
        self._log.ledger.passed_by(self._key, tenant, count, reason=reason)
        self._figures.dropped[reason] += count

    def _count_dropped(self, part: Part, count: int, reason: str) -> None:
        self._log.ledger.dropped(self._key, part.tenant, count, reason=reason)
        self._figures.dropped[reason] += count
        share = part.frame.share_of(self._key)
        assert share is not None, "held for a sink that was owed nothing"
        share.unstored += count

    def _let_go(self, parts: list[Part], *, drained: bool) -> list[Settled]:
        self._admission.release(
            sum(part.count for part in parts),
            sum(part.held_bytes for part in parts),
            drained=drained,
        )
        return self._log.settle(self._key, parts)

    def tell_settled(self, name: str, batch: Batch, outcome: Outcome, now: float) -> None:
        """Tell the observers of a batch's end, and of each record in it that was not stored."""
        stored = batch.count - len(outcome.failures) - outcome.already_stored
        oldest = min(part.frame.arrived_s for part in batch.parts)
        self._observer.batch_settled(batch, stored, outcome.already_stored, now - oldest)
        if not outcome.failures:
            return
        records = batch.records
        tenants = [part.tenant for part in batch.parts for _ in range(part.count)]
        alike: dict[tuple[str, str], list[Record]] = {}
        for index, why in outcome.failures.items():
            alike.setdefault((tenants[index], why), []).append(records[index])
        for (tenant, why), lost in alike.items():
            self._observer.records_dropped(name, tenant, lost, outcome.drop_reason, why)
        log.error(
            "sink %s: %d of %d records of batch %s dropped (%s), such as record %d: %s",
            name,
            len(outcome.failures),
            batch.count,
            batch.batch_id,
            outcome.drop_reason,
            records[index].id,
            why,
        )

    def tell_dropped(self, name: str, parts: Iterable[Part], reason: str, error: str) -> None:
        """Tell the observers of records that ended without being stored."""
        for part in parts:
            self._observer.records_dropped(name, part.tenant, part.records, reason, error)


def tell_receipts(settled: list[Settled]) -> None:
    """Tell each offer's receipt that one sink is done with its share."""
    if settled:
        receipt.settle((frame.receipt, share.unstored) for frame, share in settled)
