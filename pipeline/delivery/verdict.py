"""What follows from an attempt: its batch settles, waits, is split, or becomes dead letters.

Runs on worker threads; decides under the pipeline's lock, keeps dead letters and tells without it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable

from pipeline.deadletter import DeadLetter
from pipeline.delivery.breaker import CLOSED
from pipeline.delivery.deliver import Outcome, report
from pipeline.delivery.workers import Worker
from pipeline.drops import Drops
from pipeline.errors import SinkFault
from pipeline.log.log import Log
from pipeline.record import Batch
from pipeline.redrive import Redriven, letters_of
from pipeline.settlement import Settled, tell_receipts
from pipeline.source import Source
from pipeline.state import DRAINING, STOPPED, State

log = logging.getLogger(__name__)

# A failing sink during a drain is tried again this often at least (seconds).
DRAIN_RETRY_CAP_S = 1.0
# A batch that failed so often while others were stored is taken apart.
SUSPECT_ATTEMPTS = 5


class Verdicts:
    """See the module's text.  `recover` lets a batch wait that could not be concluded."""

    def __init__(
        self, state: State, drops: Drops, *, recover: Callable[[Worker, Batch], None]
    ) -> None:
        self._state = state
        self._drops = drops
        self._recover = recover

    def finish(self, worker: Worker, batch: Batch, outcome: Outcome) -> None:
        """A worker has made an attempt: settle its batch, let it wait, or split it."""
        state = self._state
        now = state.clock.monotonic()
        with state.lock:
            if worker.disowned:
                log.warning(
                    "sink %s: worker %s has come back; batch %s had been taken from it",
                    state.spec.name,
                    worker.name,
                    batch.batch_id,
                )
                return
            worker.answered()
            before = state.breaker.state
            if batch.outcome is None:
                outcome = self._judge(worker, batch, outcome, now)
            elif worker.permit is not None:
                state.breaker.ignored(worker.permit)
            now_is, cause = state.breaker.state, state.breaker.cause
        self._log_outcome(batch, outcome)
        if now_is != before:
            state.observer.breaker_changed(state.spec.name, now_is, cause)
        letters: list[DeadLetter] = []
        if outcome.failures and outcome.retry_in_s is None and not outcome.split:
            letters = self._letters(batch, outcome)
            if letters and batch.redrive is None and not self._keep(letters):
                batch.outcome = outcome
                self._recover(worker, batch)
                return
        self._conclude(worker, batch, outcome, letters, now)

    def _judge(self, worker: Worker, batch: Batch, outcome: Outcome, now: float) -> Outcome:
        """What an attempt says of the sink, and with that of the batch; `lock` is held."""
        state = self._state
        worker.batches += 1
        if batch.redrive is None:
            outcome = state.poison.judge(outcome, count=batch.count, attempt=batch.attempt, now=now)
        if state.breaker.state == CLOSED and worker.sink == state.sinks:
            state.tuning.attempted(batch, outcome, now)
            state.backlog.resize(state.tuning.batch_limit)
        if worker.permit is not None:
            report(outcome, breaker=state.breaker, permit=worker.permit, now=now)
        state.figures.attempted(outcome, state.clock.time_us())
        if outcome.error is not None:
            worker.failures += 1
        if outcome.bystander:
            batch.attempt -= 1
        if outcome.retry_in_s is not None and self._is_suspect(batch, outcome):
            outcome = dataclasses.replace(outcome, retry_in_s=None, split=True)
        return outcome

    def _log_outcome(self, batch: Batch, outcome: Outcome) -> None:
        if outcome.error is not None and batch.outcome is None:
            log.log(
                logging.INFO if outcome.split else logging.WARNING,
                "sink %s: batch %s of %d records, attempt %d: %s: %s",
                self._state.spec.name,
                batch.batch_id,
                batch.count,
                batch.attempt,
                type(outcome.error).__name__,
                outcome.error,
            )

    def _letters(self, batch: Batch, outcome: Outcome) -> list[DeadLetter]:
        state = self._state
        if state.spec.dead_letters is None and batch.redrive is None:
            return []
        since_s = state.clock.monotonic() - (batch.first_attempt_s or 0.0)
        now_us = state.clock.time_us()
        return letters_of(
            batch,
            outcome,
            sink_name=state.spec.name,
            now_us=now_us,
            since_us=now_us - round(since_s * 1e6),
        )

    def _keep(self, letters: list[DeadLetter]) -> bool:
        """Have the dead letters kept; without that their batch waits, and is not written again."""
        state = self._state
        assert state.spec.dead_letters is not None
        try:
            state.spec.dead_letters.put(letters)
        except Exception as error:
            log.error(
                "sink %s: %d dead letters could not be kept, such as record %d; they wait: %s: %s",
                state.spec.name,
                len(letters),
                letters[0].record_id,
                type(error).__name__,
                error,
            )
            return False
        return True

    def _conclude(
        self,
        worker: Worker,
        batch: Batch,
        outcome: Outcome,
        letters: list[DeadLetter],
        now: float,
    ) -> None:
        """Put a batch where its outcome says, and tell those who are concerned."""
        state = self._state
        done: list[Settled] = []
        delay = outcome.retry_in_s
        redrive = batch.redrive
        source = state.backlog.source_of(batch)
        assert (source is None) == (redrive is not None), "every other batch comes from a log"
        with state.lock:
            if delay is not None:
                if state.phase == DRAINING:
                    delay = math.inf if state.last_try else min(delay, DRAIN_RETRY_CAP_S)
                if worker.sink != state.sinks and not outcome.bystander:
                    delay = 0.0  # the sink that failed has been replaced meanwhile
                state.figures.retries += 1
                state.backlog.waiting.push(batch, now + delay)
            elif outcome.split:
                if source is not None:
                    self._split(source, batch, now)
            else:
                worker.records += batch.count
                state.figures.settled_s = now
                if source is None:
                    state.ends.redriven(state.log, batch, outcome)
                else:
                    lettered = bool(letters)
                    done = state.ends.settle(source.log, batch, outcome, lettered=lettered)
                    state.backlog.ended(source, batch.number)
            state.something_settled.notify_all()
            worker.end()
            state.work_to_do.notify()
            stopped = state.phase == STOPPED
            given_up = state.given_up if state.retiring else ""
        if source is not None and delay is None:
            self._write_journal(source.log)
        if delay is not None:
            assert outcome.error is not None
            state.observer.retry_scheduled(batch, delay, outcome.error)
        elif outcome.split:
            if redrive is not None:
                redrive.done(Redriven(split=True))
        else:
            kept = letters if redrive is None else []
            state.ends.tell_settled(state.spec.name, batch, outcome, kept, now)
            tell_receipts(done)
            if redrive is not None:
                redrive.done(redrive.result_of(batch, outcome, letters))
        if stopped or given_up:
            self._drops.give_redrives_up()
            if given_up or not state.on_disk:
                self._drops.drop_held(given_up or "shutdown")  # a write that outlived it has failed
        state.end_if_retired()

    @staticmethod
    def _write_journal(journal: Log) -> None:
        """So that what has ended is not sent again after a crash; a power cut may undo it."""
        try:
            journal.commit(sync=False)
        except OSError as error:
            log.warning("log %s: its journal cannot be written: %s", journal.log_id, error)

    def _is_suspect(self, batch: Batch, outcome: Outcome) -> bool:
        """Whether a batch fails as if the sink were at fault while others are stored.

        Then some record in it is: halving finds it, and its neighbours are stored.
        """
        return (
            isinstance(outcome.error, SinkFault)
            and batch.count > 1
            and batch.attempt >= SUSPECT_ATTEMPTS
            and batch.first_attempt_s is not None
            and self._state.figures.settled_s > batch.first_attempt_s
        )

    def _split(self, source: Source, batch: Batch, now: float) -> None:
        parts_of = list(batch.halves())
        numbers = source.log.split(batch.number, self._state.key, parts_of)
        halves = [
            source.batch(parts, batch.reason, number)
            for parts, number in zip(parts_of, numbers, strict=True)
        ]
        self._state.backlog.split(source, batch.number, halves)
        for half in halves:
            # Its records were first tried, and counted among the flushes, with the whole batch.
            # Its attempts are its own: isolating poison must not use up those of the neighbours.
            half.first_attempt_s = batch.first_attempt_s
            half.first_closed_s = batch.first_closed_s
            self._state.backlog.waiting.push(half, now)
