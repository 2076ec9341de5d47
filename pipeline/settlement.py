"""How records end: entered into the ledger, their room given back, and told to those who wait.

One per pipeline.  `settle`, `drop` and `pass_by` are called under the pipeline's lock and decide;
the `tell_` methods are called without it and speak.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipeline import receipt
from pipeline.deadletter import DeadLetter
from pipeline.delivery.deliver import Outcome
from pipeline.figures import Figures
from pipeline.intake.admission import Admission
from pipeline.log.frame import Frame, Share
from pipeline.log.log import ALREADY_STORED, DEAD_LETTERED, STORED, End, Log
from pipeline.log.manifest import Read
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
        admission: Admission,
        figures: Figures,
        observer: Observer,
    ) -> None:
        self._key = key
        self._admission = admission
        self._figures = figures
        self._observer = observer

    def settle(
        self, journal: Log, batch: Batch, outcome: Outcome, *, lettered: bool
    ) -> list[Settled]:
        """A batch has ended: stored, but for its failures, which are dead letters or dropped.

        Returns the shares that are done.
        """
        ends = self.ends_of(batch, outcome, lettered=lettered)
        for part, count in batch.parts_of(outcome.failures).items():
            self._unstored(part, count)
        if outcome.failures and not lettered:
            self._figures.dropped[outcome.drop_reason] += len(outcome.failures)
        self._release(batch.parts, drained=True)
        return journal.end(self._key, batch.parts, ends, number=batch.number)

    def redriven(self, journal: Log, batch: Batch, outcome: Outcome) -> None:
        """Dead letters were sent once more: they came in, and ended, with this."""
        tenants: Counter[str] = Counter()
        for part in batch.parts:
            tenants[part.tenant] += part.count
        journal.redriven(self._key, tenants, self.ends_of(batch, outcome, lettered=True))

    def ends_of(self, batch: Batch, outcome: Outcome, *, lettered: bool) -> list[End]:
        """How the records of a batch have ended, by tenant."""
        stored: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for part in batch.parts:
            stored[part.tenant] += part.count
        if outcome.failures:
            for part, count in batch.parts_of(outcome.failures).items():
                stored[part.tenant] -= count
                failed[part.tenant] += count
        how = DEAD_LETTERED if lettered else outcome.drop_reason
        ends = [End(tenant, how, count) for tenant, count in failed.items()]
        already = outcome.already_stored
        for tenant, count in stored.items():
            known = min(already, count)
            already -= known
            if known:
                ends.append(End(tenant, ALREADY_STORED, known))
            ends.append(End(tenant, STORED, count - known))
        return ends

    def drop(self, journal: Log, batch: Batch, reason: str) -> list[Settled]:
        """A batch ends without being stored.  Returns the shares that are done."""
        ends = self._dropped(batch.parts, reason)
        return journal.end(self._key, batch.parts, ends, number=batch.number)

    def drop_parts(self, journal: Log, parts: list[Part], reason: str) -> list[Settled]:
        """Some parts of a batch end without being stored, and the batch is still awaited."""
        return journal.end(self._key, parts, self._dropped(parts, reason))

    def drop_unread(self, journal: Log, part: Part, read: Read, reason: str) -> list[Settled]:
        """Records that were in no batch end without being stored; `read` is what follows them."""
        ends = self._dropped([part], reason)
        return journal.end(self._key, [part], ends, read=read)

    def _dropped(self, parts: list[Part], reason: str) -> list[End]:
        for part in parts:
            self._unstored(part, part.count)
            self._figures.dropped[reason] += part.count
        self._release(parts, drained=False)
        return [End(part.tenant, reason, part.count) for part in parts]

    def lost(self, tenants: Mapping[str, int], nbytes: int, reason: str) -> None:
        """Records have ended in the ledger that are in no frame any more: give back their room."""
        records = sum(tenants.values())
        self._figures.dropped[reason] += records
        freed = [(tenant, count, 0) for tenant, count in tenants.items()]
        freed[:1] = [(*freed[0][:2], nbytes)]  # whose bytes they were nobody knows any more
        self._admission.release_all(freed, drained=False)

    def pass_by(self, journal: Log, tenant: str, count: int, reason: str) -> None:
        """Records were never taken in: they were shed, or an optional sink had no room."""
        journal.ledger.passed_by(self._key, tenant, count, reason=reason)
        self._figures.dropped[reason] += count

    def _unstored(self, part: Part, count: int) -> None:
        share = part.frame.share_of(self._key)
        assert share is not None, "held for a sink that was owed nothing"
        share.unstored += count

    def _release(self, parts: list[Part], *, drained: bool) -> None:
        if len(parts) == 1:
            part = parts[0]
            freed = [(part.tenant, part.count, part.held_bytes)]
        else:
            tenants: dict[str, list[int]] = {}
            for part in parts:
                held = tenants.get(part.tenant)
                if held is None:
                    tenants[part.tenant] = [part.count, part.held_bytes]
                else:
                    held[0] += part.count
                    held[1] += part.held_bytes
            freed = [(tenant, held[0], held[1]) for tenant, held in tenants.items()]
        self._admission.release_all(freed, drained=drained)

    def tell_settled(
        self, name: str, batch: Batch, outcome: Outcome, letters: Sequence[DeadLetter], now: float
    ) -> None:
        """Tell the observers of a batch's end, and of each record in it that was not stored."""
        stored = batch.count - len(outcome.failures) - outcome.already_stored
        oldest = min(part.frame.arrived_s for part in batch.parts)
        self._observer.batch_settled(batch, stored, outcome.already_stored, now - oldest)
        if not outcome.failures:
            return
        if letters:
            self._observer.records_dead_lettered(name, letters)
        else:
            self._tell_lost(name, batch, outcome)
        index, why = next(reversed(outcome.failures.items()))
        log.error(
            "sink %s: %d of %d records of batch %s %s (%s), such as record %d: %s",
            name,
            len(outcome.failures),
            batch.count,
            batch.batch_id,
            _became(batch, letters),
            outcome.drop_reason,
            batch.records[index].id,
            why,
        )

    def _tell_lost(self, name: str, batch: Batch, outcome: Outcome) -> None:
        records = batch.records
        tenants = [part.tenant for part in batch.parts for _ in range(part.count)]
        alike: dict[tuple[str, str], list[Record]] = {}
        for index, why in outcome.failures.items():
            alike.setdefault((tenants[index], why), []).append(records[index])
        for (tenant, why), lost in alike.items():
            self._observer.records_dropped(name, tenant, lost, outcome.drop_reason, why)

    def tell_dropped(self, name: str, parts: Iterable[Part], reason: str, error: str) -> None:
        """Tell the observers of records that ended without being stored."""
        for part in parts:
            self._observer.records_dropped(name, part.tenant, part.records, reason, error)


def _became(batch: Batch, letters: Sequence[DeadLetter]) -> str:
    if batch.redrive is not None:
        return "are refused again, and stay dead letters"
    return "are dead letters now" if letters else "dropped"


def tell_receipts(settled: list[Settled]) -> None:
    """Tell each offer's receipt that one sink is done with its share."""
    if settled:
        receipt.settle((frame.receipt, share.unstored) for frame, share in settled)
