"""One log as one sink sees it: what waits there, and how it comes out as batches.

A pipeline has one for its process's own log and one for each log it has adopted.  Guarded by the
pipeline's lock; what does I/O (`Chore.run`) is called without it, by one worker at a time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.batching.batcher import Batcher
from pipeline.log.log import CORRUPT, End, Log
from pipeline.log.recovery import Replay
from pipeline.record import Batch, Part
from pipeline.settings import PipelineSettings

# When the files cannot be read, they are tried again after so long (seconds).
REREAD_S = 1.0


@dataclass(kw_only=True)
class Chore:
    """Something a worker has to read from a log's files before there is a batch.

    `run` reads, without the pipeline's lock; `Source.finish` takes over what it found.
    """

    source: Source
    replay: Replay | None = None
    parts: list[Part] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    lost_bytes: int = 0
    failed: bool = False

    def run(self) -> None:
        """Read; raises OSError."""
        source, replay = self.source, self.replay
        if replay is None:
            self.lost, self.lost_bytes = source.batcher.fill()
            return
        assert replay.place is not None, "a batch without a place has no records left"
        self.parts = source.log.load(source.sink, replay.extents, replay.place)
        self.lost = replay.tenants - Counter(
            {
                tenant: sum(part.count for part in self.parts if part.tenant == tenant)
                for tenant in {part.tenant for part in self.parts}
            }
        )
        self.lost_bytes = replay.nbytes - sum(part.held_bytes for part in self.parts)


class Source:
    """See the module's text."""

    def __init__(
        self,
        *,
        log: Log,
        sink: str,
        settings: PipelineSettings,
        replays: Iterable[Replay] = (),
        adopted: bool = False,
    ) -> None:
        self.log = log
        self.sink = sink
        self.adopted = adopted
        self.cursor = log.cursor(sink)
        self.batcher = Batcher(log=log, cursor=self.cursor, settings=settings)
        self._replays = deque(replays)
        self._loading: list[Replay] = []
        self._filling = False
        self._reread_at = 0.0

    @property
    def on_disk(self) -> bool:
        """Whether what is left here at a stop is there at the next start."""
        return self.log.files is not None

    @property
    def empty(self) -> bool:
        """Whether nothing waits here; batches that were formed are elsewhere."""
        return not (self._replays or self._loading or self.batcher.waiting_records)

    def due_s(self, now: float, *, shutdown: bool) -> float | None:
        """Seconds until something can be done here; None while there is nothing."""
        # Of what is being read, whoever reads says when it is there.
        due = self.batcher.due_s(now, shutdown=shutdown)
        if self._replays or (self.batcher.lags and not self._filling):
            read_s = max(0.0, self._reread_at - now)
            return read_s if due is None else min(read_s, due)
        return due

    def chore(self, now: float) -> Chore | None:
        """What has to be read next, if anything can be."""
        if now < self._reread_at:
            return None
        if self._replays:
            replay = self._replays.popleft()
            self._loading.append(replay)
            return Chore(source=self, replay=replay)
        if self.batcher.lags and not self._filling:
            self._filling = True
            return Chore(source=self)
        return None

    def finish(self, chore: Chore, now: float) -> Batch | None:
        """Take over what a chore has read; returns the batch that is to be delivered again.

        What turned out to be spoilt has ended in the ledger with this.
        """
        replay = chore.replay
        if replay is None:
            self._filling = False
            if chore.failed:
                self._reread_at = now + REREAD_S
            return None
        self._loading.remove(replay)
        if chore.failed:
            self._replays.appendleft(replay)
            self._reread_at = now + REREAD_S
            return None
        ends = [End(tenant, CORRUPT, count) for tenant, count in chore.lost.items()]
        if not chore.parts:
            self.log.end_lost(self.sink, ends, number=replay.number)
            return None
        if ends:
            self.log.end_lost(self.sink, ends)
        return self.batch(chore.parts, "replay", replay.number)

    def take(self, *, shutdown: bool) -> Batch | None:
        """The next batch, noted in the manifest; only when one is due.

        None if what was due has left memory this moment, and has to be loaded first.
        """
        parts, reason = self.batcher.take(shutdown=shutdown)
        if not parts:
            return None
        number = self.log.form(self.sink, parts, self.batcher.read)
        self.batcher.formed()
        return self.batch(parts, reason, number)

    def take_held_back(self) -> Batch | None:
        """A batch of what is held back, noted in the manifest, if that stands in the way.

        It waits for the earlier ones of its tenant; the log can be let go of up to it.
        """
        if not self.batcher.stands:
            return None
        parts = self.batcher.take_held_back()
        if not parts:
            return None
        number = self.log.form(self.sink, parts, self.batcher.read)
        self.batcher.formed()
        return self.batch(parts, "size", number)

    def replays(self) -> list[Replay]:
        """The batches of a process that is gone which are not read yet."""
        return [*self._replays, *self._loading]

    def batch(self, parts: list[Part], reason: str, number: int) -> Batch:
        batch = Batch(
            number=number, log_id=self.log.log_id, sink=self.sink, reason=reason, parts=parts
        )
        batch.proofs_below = self.log.settled_below.get(self.sink, 0)
        return batch

    def waiting_by_tenant(self) -> Counter[str]:
        """Every record that waits here, by tenant; the log's lock must be held too."""
        waiting = self.batcher.waiting_by_tenant()
        for replay in (*self._replays, *self._loading):
            waiting.update(replay.tenants)
        return waiting

    @property
    def waiting_bytes(self) -> int:
        """What is set aside for all that waits here."""
        replays = sum(replay.nbytes for replay in (*self._replays, *self._loading))
        return self.batcher.waiting_bytes + replays

    @property
    def waiting_records(self) -> int:
        replays = sum(replay.count for replay in (*self._replays, *self._loading))
        return self.batcher.waiting_records + replays
