"""Records that end without being stored: for want of room, at a stop, or with their sink.

On threads of requests, the keeper's and the control thread; decided under the pipeline's lock,
told without it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from pipeline.reader import Reader
from pipeline.record import Part, Record
from pipeline.redrive import Redriven
from pipeline.settlement import Settled, tell_receipts
from pipeline.source import Chore, Source
from pipeline.state import State

log = logging.getLogger(__name__)

# How often it is said that an optional sink drops (seconds).
COMPLAIN_EVERY_S = 10.0
LOST_BECAUSE = {
    "shutdown": "they were not stored before the stop",
    "sink_removed": "the sink they waited for was removed",
}


class Drops:
    """See the module's text."""

    def __init__(self, state: State, reader: Reader) -> None:
        self._state = state
        self._reader = reader
        # Guarded by the state's lock.
        self._untold = 0
        self._told_at = -math.inf

    def make_room(self, records: int, nbytes: int, *, tenant: str) -> bool:
        """Room for an optional sink's share, if need be by dropping its oldest waiting records."""
        state = self._state
        if not state.admission.could_fit(records, nbytes):
            return False
        while not state.admission.fits(records, nbytes, tenant=tenant):
            chore: Chore | None = None
            with state.lock:
                waiting = [source.waiting_records for source in state.backlog.sources]
                waiting_bytes = [source.waiting_bytes for source in state.backlog.sources]
                if not state.admission.fits_without(
                    sum(waiting), sum(waiting_bytes), records, nbytes
                ):
                    break  # what workers hold fills it: dropping the rest would be in vain
                taken = state.backlog.take_oldest()
                if taken is None:
                    chore = self._reader.next()
                    if chore is None:
                        break
                else:
                    done = self.drop_unread(*taken, "backlog")
            if chore is not None:
                self._reader.run(chore)
                continue
            assert taken is not None
            self._complain(taken[1].count)
            state.ends.tell_dropped(state.spec.name, [taken[1]], "backlog", "the backlog was full")
            tell_receipts(done)
            state.end_if_retired()
        else:
            return True
        return False

    def _complain(self, records: int) -> None:
        """Say now and then that an optional sink loses records: each one would be a flood."""
        state = self._state
        now = state.clock.monotonic()
        with state.lock:
            self._untold += records
            if now < self._told_at + COMPLAIN_EVERY_S:
                return
            untold, self._untold, self._told_at = self._untold, 0, now
        log.warning(
            "sink %s is optional and full: its %d oldest records were dropped (backlog)",
            state.spec.name,
            untold,
        )

    def let_file_go(self, file: int) -> None:
        """Drop the waiting records of an optional sink that stand in `file` of the own log."""
        state = self._state
        own = state.backlog.own
        dropped = 0
        while True:
            part: Part | None = None
            chore: Chore | None = None
            with state.lock:
                if own.batcher.lags:
                    chore = own.chore(state.clock.monotonic())
                    state.chores += chore is not None
                elif own.batcher.head_file() == file:
                    part = own.batcher.take_oldest()
                done = self.drop_unread(own, part, "backlog") if part is not None else []
            if part is not None:
                dropped += part.count
                state.ends.tell_dropped(state.spec.name, [part], "backlog", "the log was full")
                tell_receipts(done)
            elif chore is None:
                break
            else:
                self._reader.run(chore)
                if chore.failed:
                    break
        if dropped:
            log.warning(
                "sink %s: its %d oldest records are dropped (backlog), as the log was nearly full",
                state.spec.name,
                dropped,
            )

    def drop_unread(self, source: Source, part: Part, reason: str) -> list[Settled]:
        done = self._state.ends.drop_unread(source.log, part, source.batcher.read, reason)
        self._state.something_settled.notify_all()
        return done

    def pass_by(self, tenant: str, offered: Sequence[Record]) -> None:
        """An optional sink has no room even with its backlog dropped: count the records as gone."""
        state = self._state
        records = state.spec.route.passing(offered)
        self._complain(len(records))
        with state.lock:
            state.ends.pass_by(state.log, tenant, len(records), "backlog")
        state.observer.records_dropped(
            state.spec.name, tenant, records, "backlog", "the sink holds all that it may"
        )

    def shed(self, tenant: str, records: Sequence[Record]) -> None:
        """Records of the lowest levels were not taken in, as the sink is nearly full."""
        state = self._state
        with state.lock:
            state.ends.pass_by(state.log, tenant, len(records), "shed")
        state.observer.records_dropped(
            state.spec.name, tenant, records, "shed", "the sink is above its shed mark"
        )

    def drop_held(self, reason: str = "shutdown") -> None:
        """What is at hand is lost, as when a stop leaves it behind in memory: count and say so."""
        state = self._state
        done: list[Settled] = []
        dropped: list[Part] = []
        with state.lock:
            for batch in state.backlog.take_waiting(lambda batch: batch.redrive is None):
                source = state.backlog.source_of(batch)
                assert source is not None, "only what is redriven comes from no log"
                done += state.ends.drop(source.log, batch, reason)
                state.backlog.ended(source, batch.number)
                dropped += batch.parts
            while (taken := state.backlog.take_oldest()) is not None:
                done += self.drop_unread(*taken, reason)
                dropped.append(taken[1])
            if dropped:
                state.something_settled.notify_all()
        state.ends.tell_dropped(state.spec.name, dropped, reason, LOST_BECAUSE[reason])
        if dropped:
            log.error(
                "sink %s: %d records are lost (%s): %s",
                state.spec.name,
                sum(part.count for part in dropped),
                reason,
                LOST_BECAUSE[reason],
            )
        tell_receipts(done)
        state.end_if_retired()

    def drop_unlogged(self, reason: str) -> None:
        """At the very end: what no file holds is lost with the process.

        A batch that was formed stays in the manifest, with those of its records that are in files.
        """
        state = self._state
        lost: list[Part] = []
        done: list[Settled] = []
        with state.lock:
            for batch in state.backlog.batches():
                mine = [part for part in batch.parts if part.frame.file < 0]
                if mine and batch.redrive is None:
                    batch.parts = [part for part in batch.parts if part.frame.file >= 0]
                    batch.count = sum(part.count for part in batch.parts)
                    done += state.ends.drop_parts(state.log, mine, reason)
                    lost += mine
            tenants = state.log.drop_unread_unlogged(state.key, reason)
            unread = tenants.total()
            if unread:
                state.ends.lost(tenants, 0, reason)
        count = unread + sum(part.count for part in lost)
        if count:
            log.error(
                "sink %s: %d records are lost (%s): they were in memory alone, as the log's files "
                "could not be written",
                state.spec.name,
                count,
                reason,
            )
        state.ends.tell_dropped(state.spec.name, lost, reason, LOST_BECAUSE[reason])
        tell_receipts(done)

    def drop_lagging(self, reason: str) -> None:
        """Drop what has to be read from files first, piece by piece."""
        while True:
            with self._state.lock:
                chore = self._reader.next()
            if chore is None:
                return
            self._reader.run(chore)
            if chore.failed:
                return  # the pipeline's workers find out when the files can be read again
            self.drop_held(reason)

    def give_redrives_up(self) -> None:
        """Whoever sent dead letters once more keeps them."""
        with self._state.lock:
            given_up = self._state.backlog.take_waiting(lambda batch: batch.redrive is not None)
        for batch in given_up:
            assert batch.redrive is not None
            batch.redrive.done(Redriven(given_up=True))
