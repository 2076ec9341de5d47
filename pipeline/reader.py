"""Reading what a lagging sink is owed from the log's files; on a worker, or whoever makes room."""

from __future__ import annotations

import logging

from pipeline.source import Chore
from pipeline.state import State

log = logging.getLogger(__name__)


class Reader:
    """Runs the chores of one pipeline's sources, outside its lock."""

    def __init__(self, state: State) -> None:
        self._state = state

    def next(self) -> Chore | None:
        """Something to be read from files, if that is what comes next; `lock` is held."""
        state = self._state
        now = state.clock.monotonic()
        for source in state.backlog.sources:
            if (chore := source.chore(now)) is not None:
                state.chores += 1
                return chore
        return None

    def run(self, chore: Chore) -> None:
        """Read what is to be delivered next from the log's files."""
        state = self._state
        try:
            chore.run()
        except OSError as error:
            chore.failed = True
            log.error("sink %s: the log's files cannot be read: %s", state.spec.name, error)
        except BaseException:
            chore.failed = True
            log.exception("sink %s: the log's files cannot be read", state.spec.name)
        with state.lock:
            state.chores -= 1
            now = state.clock.monotonic()
            batch = chore.source.finish(chore, now)
            lost = 0 if chore.failed else chore.lost.total()
            if lost:
                state.ends.lost(chore.lost, chore.lost_bytes, "corrupt")
            replay = chore.replay
            if replay is not None and batch is None and not chore.failed:
                state.backlog.ended(chore.source, replay.number)
            if batch is not None:
                batch.nbytes = sum(part.nbytes for part in batch.parts)
                state.backlog.waiting.push(batch, now)
            state.work_to_do.notify()
            state.something_settled.notify_all()
        if lost:
            log.error(
                "sink %s: %d records of log %s are spoilt in its files, and dropped (corrupt)",
                state.spec.name,
                lost,
                chore.source.log.log_id,
            )
