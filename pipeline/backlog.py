"""All that waits for one sink, and what is to be done of it next.

Batches that wait for an attempt go first, then what the sources hold, each of them in turn: this
process's own log, and the logs it has adopted.  Guarded by the pipeline's lock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from pipeline.batching.order import Place, TenantOrder
from pipeline.delivery.waiting import WaitingBatches
from pipeline.record import Batch, Part
from pipeline.settings import PipelineSettings
from pipeline.source import Chore, Source

MIB = 1024 * 1024
# What may wait for its next attempt where each tenant's batches are its own.
WAITING_BATCHES = 1_000
WAITING_BYTES = 64 * MIB


class Backlog:
    """See the module's text; `own` is the source of this process's own log."""

    def __init__(self, own: Source, settings: PipelineSettings) -> None:
        self.own = own
        self.waiting = WaitingBatches()
        self._settings = settings
        self._sources = [own]
        self._limit: int | None = None
        # Which batches go before which, where the sink asks for it.
        self._order = TenantOrder() if settings.ordered else None

    def configure(self, settings: PipelineSettings, held: Iterable[Batch] = ()) -> None:
        """Take on changed settings; `held` are the batches that workers have."""
        self._settings = settings
        for source in self._sources:
            source.batcher.configure(settings)
        if settings.ordered and self._order is None:
            self._order = TenantOrder()
            for batch in (*held, *self.waiting):
                self._hold(batch)
            for source in self._sources:
                self._hold_replays(source)
        elif not settings.ordered and self._order is not None:
            order, self._order = self._order, None
            for source in self._sources:
                source.batcher.release(order.held(source.log.log_id))

    def resize(self, max_records: int | None) -> None:
        """Close batches at this count from now on; None: at the settings' own."""
        self._limit = max_records
        for source in self._sources:
            source.batcher.resize(max_records)

    @property
    def max_records(self) -> int:
        """The count at which a batch closes."""
        return self.own.batcher.max_records

    @property
    def sources(self) -> list[Source]:
        return list(self._sources)

    @property
    def adopted(self) -> list[Source]:
        return [source for source in self._sources if source.adopted]

    def add(self, source: Source) -> None:
        source.batcher.resize(self._limit)
        self._hold_replays(source)
        self._sources = [*self._sources, source]

    def remove(self, source: Source) -> None:
        # Replaced whole, as workers look up their batches' sources without the lock.
        self._sources = [one for one in self._sources if one is not source]

    def source_of(self, batch: Batch) -> Source | None:
        """Where a batch came from; None for dead letters that are redriven."""
        for source in self._sources:
            if source.log.log_id == batch.log_id:
                return source
        return None

    # --- order within tenants --------------------------------------------------------------

    @property
    def _may_go(self) -> Callable[[Batch], bool] | None:
        """Whether a batch that waits need not wait for an earlier one; None: none has to."""
        order = self._order
        if order is None:
            return None
        return lambda batch: batch.redrive is not None or order.may_go(batch.log_id, batch.number)

    def _hold(self, batch: Batch) -> None:
        """Later records of a batch's tenants have to wait for its end."""
        if self._order is None or batch.redrive is not None:
            return
        firsts: dict[str, Place] = {}
        for part in batch.parts:
            place = part.frame.position, part.start
            firsts[part.tenant] = min(place, firsts.get(part.tenant, place))
        self._order.hold(batch.log_id, batch.number, firsts)
        if (source := self.source_of(batch)) is not None:
            source.batcher.park(firsts)

    def _hold_replays(self, source: Source) -> None:
        if self._order is not None:
            for replay in source.replays():
                self._order.hold(source.log.log_id, replay.number, replay.firsts)
                source.batcher.park(replay.firsts)

    def ended(self, source: Source, number: int) -> None:
        """A batch has ended: what waited for that may go."""
        if self._order is not None:
            source.batcher.release(self._order.release(source.log.log_id, number))

    def split(self, source: Source, number: int, children: list[Batch]) -> None:
        """A batch was cut into others, which take its place."""
        if self._order is not None:
            for child in children:
                self._hold(child)
            self.ended(source, number)

    # --- what is to be done ----------------------------------------------------------------

    def _may_batch(self) -> bool:
        """Whether a fresh batch may be formed: what waits for a failing sink stays in the log.

        Two may wait even where one worker is all there is, so that no single batch holds it up.
        """
        settings = self._settings
        if len(self.waiting) < max(2, settings.max_workers):
            return True
        # Where tenants are apart, those that fail must not hold up the others.
        return (
            (settings.ordered or settings.partition_by == "tenant")
            and len(self.waiting) < WAITING_BATCHES
            and sum(batch.nbytes for batch in self.waiting) < WAITING_BYTES
        )

    def due_s(self, now: float, *, shutdown: bool) -> float | None:
        """Seconds until there is something to do; None while there is nothing, nor will be."""
        dues = [self.waiting.due_s(now, may_go=self._may_go)]
        if self._may_batch():
            dues += [source.due_s(now, shutdown=shutdown) for source in self._sources]
        due = min((due for due in dues if due is not None), default=None)
        return None if due == math.inf else due

    def next(self, now: float, *, shutdown: bool, probing: bool = False) -> Batch | Chore | None:
        """What a worker is to do now.

        What probes a sink whose breaker is not closed is a fresh batch, if one may be formed: one
        that has failed may be at fault itself, and would keep the breaker open for all others.
        """
        if probing and (found := self._next_fresh(now, shutdown=shutdown)) is not None:
            return found
        if (batch := self.waiting.pop_due(now, may_go=self._may_go)) is not None:
            return batch
        return self._next_fresh(now, shutdown=shutdown)

    def _next_fresh(self, now: float, *, shutdown: bool) -> Batch | Chore | None:
        if not self._may_batch():
            return None
        for index, source in enumerate(self._sources):
            if self._order is not None and (held_back := source.take_held_back()) is not None:
                self._hold(held_back)
                self.waiting.push(held_back, now)
            if source.due_s(now, shutdown=shutdown) != 0:
                continue
            found: Batch | Chore | None = source.chore(now)
            if found is None and source.batcher.due_s(now, shutdown=shutdown) == 0:
                found = source.take(shutdown=shutdown) or source.chore(now)
                if isinstance(found, Batch):
                    self._hold(found)
            if found is not None:
                # The others come first next time.
                self._sources = self._sources[index + 1 :] + self._sources[: index + 1]
                return found
        return None

    @property
    def full(self) -> bool:
        """Whether a whole batch can be formed at once."""
        return any(source.batcher.full for source in self._sources)

    def batches(self) -> Iterator[Batch]:
        """The batches that wait for their next attempt."""
        return iter(self.waiting)

    def lowest_position(self, held: list[Batch]) -> int | None:
        """The first position of the own log that is not settled; `held` are workers' batches."""
        log_id = self.own.log.log_id
        positions = [
            part.frame.position
            for batch in (*held, *self.waiting)
            if batch.log_id == log_id
            for part in batch.parts
        ]
        first = self.own.batcher.lowest_position()
        if first is not None:
            positions.append(first)
        return min(positions, default=None)

    def held_records(self, held: list[Batch]) -> int:
        """Every record that is somewhere here; `held` are workers' batches."""
        batches: int = sum(b.count for b in (*held, *self.waiting) if b.redrive is None)
        return batches + sum(source.waiting_records for source in self._sources)

    def held_by_tenant(self, source: Source, held: list[Batch]) -> Counter[str]:
        """Every record of a source that is somewhere, by tenant; its log's lock must be held."""
        count = source.waiting_by_tenant()
        for batch in (*held, *self.waiting):
            if batch.log_id == source.log.log_id:
                for part in batch.parts:
                    count[part.tenant] += part.count
        return count

    def take_waiting(self, mine: Callable[[Batch], bool] = lambda batch: True) -> list[Batch]:
        """Take out the batches that wait, or some of them."""
        taken = []
        for batch, due in self.waiting.take_all():
            if mine(batch):
                taken.append(batch)
            else:
                self.waiting.push(batch, due)
        return taken

    def take_oldest(self) -> tuple[Source, Part] | None:
        """The oldest records that are at hand and in no batch."""
        for source in self._sources:
            if (part := source.batcher.take_oldest()) is not None:
                return source, part
        return None
