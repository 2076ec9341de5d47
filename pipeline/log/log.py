"""The log, which is the queue: frames appended once, read by every sink through its own cursor.

Request threads append, workers read and settle.  `lock` guards the frames in memory, the cursors,
what is left of every frame and every file, the manifest, and makes each of these steps one with
its entry in the ledger; no I/O happens under it.  A pipeline's lock may be held when `lock` is
taken, never the reverse.

With files (`LogFiles`) memory is a bounded cache of the log's end: a sink that lags reads from
the files.  Without, memory is all there is.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from pipeline.ledger import Ledger
from pipeline.log.chain import Chain
from pipeline.log.checkpoint import Checkpoint, Ended, Entry, Formed, Split, TallyEntry
from pipeline.log.cursor import Cursor
from pipeline.log.encoding import Header, Meta, shares_of
from pipeline.log.files import LogFiles
from pipeline.log.frame import Frame, Share
from pipeline.log.manifest import Extent, Manifest, Read, extents_of
from pipeline.log.scan import Found
from pipeline.log.segmentfile import Place, read_from
from pipeline.receipt import Receipt
from pipeline.record import Part
from pipeline.runtime.clock import Clock, SystemClock

log = logging.getLogger(__name__)

MIB = 1024 * 1024

CORRUPT = "corrupt"
STORED, ALREADY_STORED, DEAD_LETTERED = "stored", "already_stored", "dead_lettered"

Taken = list[tuple[Frame, Share]]


class End(NamedTuple):
    """So many records of a tenant ended: stored, already_stored, dead_lettered, or, for any other
    word, dropped with that reason."""

    tenant: str
    how: str
    records: int


class Log:
    """One log: this process's own, or one that it has adopted, which nothing is appended to."""

    def __init__(
        self,
        *,
        log_id: str,
        files: LogFiles | None = None,
        manifest: Manifest | None = None,
        ledger: Ledger | None = None,
        next_position: int = 0,
        cache_bytes: int = 64 * MIB,
        clock: Clock | None = None,
        published: Callable[[Sequence[Frame]], None] | None = None,
    ) -> None:
        self.log_id = log_id
        self.lock = threading.Lock()
        self.ledger = ledger or Ledger()
        self.manifest = manifest or Manifest()
        self.files = files
        # Below it every batch of a sink is settled, and the checkpoint on disk says so.
        self.settled_below: dict[str, int] = {}
        self._clock = clock or SystemClock()
        self._published = published or _unheard
        self._cursors: dict[str, Cursor] = {}
        self._chain = Chain(self._cursors.values, next_position)
        self._position = next_position
        self._cache_bytes = cache_bytes
        self._receipts: WeakValueDictionary[int, Receipt] = WeakValueDictionary()
        self._keyed: dict[str, int] = {}
        if files is not None:
            files.bind(self.lock, publish=self._publish_written, snapshot=self._snapshot)

    @property
    def next_position(self) -> int:
        """The position that the next frame will have."""
        return self._position

    @property
    def cached_bytes(self) -> int:
        """What the frames in memory take."""
        return self._chain.nbytes

    def cursor(self, sink: str) -> Cursor:
        """The cursor of a sink, made at the log's end on the first call."""
        with self.lock:
            return self._cursor(sink)

    def _cursor(self, sink: str) -> Cursor:
        cursor = self._cursors.get(sink)
        if cursor is None:
            cursor = self._cursors[sink] = Cursor(sink)
            cursor.next_position = self._position
        return cursor

    def restore_cursor(self, cursor: Cursor) -> None:
        """A cursor as a recovered log has it."""
        with self.lock:
            self._cursors[cursor.sink] = cursor

    def cursors(self) -> list[Cursor]:
        """The cursors of all sinks."""
        with self.lock:
            return list(self._cursors.values())

    def held_cursors(self) -> list[Cursor]:
        """The cursors of all sinks; `lock` is held."""
        return list(self._cursors.values())

    def remove_cursor(self, sink: str) -> None:
        """Forget a sink that is owed nothing any more."""
        with self.lock:
            self._cursors.pop(sink, None)

    # --- appending -------------------------------------------------------------------------

    def append(self, frame: Frame, *, durable: bool = False) -> bool:
        """Take a frame in; from then on its records are owed to each sink of its shares.

        With `durable` it returns once the frame is in the files as they promise, and raises
        LogUnavailable when it cannot be: nothing is kept of it then.  Returns whether the frame is
        owed already; if not, it will be within moments, and `published` is called with it.
        """
        if self.files is None:
            self.publish([frame])
            return True
        self.files.append(frame, durable=durable)
        return False

    def _publish_written(self, frames: Sequence[Frame], end: int) -> None:
        self.publish(frames, end)
        self._published(frames)

    def publish(self, frames: Sequence[Frame], end: int = 0) -> None:
        """Frames, in the order of the log, are there for the sinks to read.

        Those that are in a file are all in the same, the sound part of which ends at `end` now.
        """
        with self.lock:
            for frame in frames:
                if frame.position < 0:
                    frame.position = self._position
                self._position = frame.position + 1
                segment = self._chain.append(frame)
                owed = 0
                unlogged = self.files is not None and frame.file < 0
                for share in frame.shares:
                    self.ledger.accepted(share.sink, frame.tenant, share.count, unlogged=unlogged)
                    self._cursor(share.sink).appended(segment, frame, share)
                    owed += share.count
                if self.files is not None and frame.file >= 0:
                    if frame.key:
                        self._keyed[frame.key] = frame.file
                        owed += 1
                    self.files.segments.owe(frame.file, owed, end=end)
            if self.files is not None:
                self._evict()

    def hold_key(self, key: str, file: int) -> None:
        """A recovered frame has a key that nobody has said to be recorded."""
        with self.lock:
            self._keyed[key] = file

    def key_recorded(self, key: str) -> None:
        """What a frame's key stands for is kept elsewhere: the frame is not needed for it."""
        with self.lock:
            file = self._keyed.pop(key, -1)
            if file >= 0 and self.files is not None:
                self.files.settled(file, 1)

    def _evict(self) -> None:
        """Let go of the oldest frames in memory, which are in the files."""
        while self._chain.nbytes > self._cache_bytes:
            frames = self._chain.evict()
            if frames is None:
                return
            for frame in frames:
                if not frame.receipt.done:
                    self._receipts[frame.position] = frame.receipt

    # --- reading ---------------------------------------------------------------------------

    def read(self, cursor: Cursor) -> tuple[Frame, Share] | None:
        """The next frame in the line of a cursor's sink, and its share."""
        with self.lock:
            return cursor.read()

    def read_many(self, cursor: Cursor, records: int, nbytes: int) -> tuple[Taken, Taken]:
        """What has overtaken the line, and of the line about so much as is at hand.

        In one step: what a tenant has in the line came after what of it overtook.
        """
        with self.lock:
            overtaking = cursor.read_overtaking() if cursor.overtaking else []
            line: Taken = []
            while records > 0 and nbytes > 0 and (read := cursor.read()) is not None:
                line.append(read)
                share = read[1]
                records -= share.unread
                nbytes -= share.weight(share.unread)
            return overtaking, line

    def fill(self, cursor: Cursor, max_bytes: int) -> tuple[Counter[str], int]:
        """Load for a cursor that lags what comes next for it, up to about `max_bytes`.

        Does I/O; one thread at a time for one cursor.  Returns the records that were counted as
        unread and turned out to be spoilt in the files, by tenant, with the room that was set aside
        for them (bytes): they have ended with this, as dropped.  Raises OSError.
        """
        with self.lock:
            place, stop = cursor.behind, self._chain.evicted_below
            if place is None or self.files is None:
                return self._reconcile(cursor)
            pieces = self.files.segments.pieces(place)
        frames: list[Frame] = []
        passed = cursor.passed
        room, after, damaged, here = max_bytes, None, False, place
        for here, found in read_from(self.files.disk, pieces, place):
            if not isinstance(found, Found):
                damaged = True
                self.files.damaged(here, found)
                continue
            header = found.header
            if header.position < cursor.next_load:
                continue
            if header.position >= stop:
                break
            if room <= 0:
                after = here
                break
            if header.position in passed:
                continue  # it has overtaken what stands here
            if any(share.sink == cursor.sink for share in found.meta.shares):
                frame = self._frame(here, header, found.meta, found.payload, cursor.sink)
                share = frame.share_of(cursor.sink)
                if share is not None and share.unread:
                    frames.append(frame)
                    room -= len(found.payload)
        with self.lock:
            cursor.damaged |= damaged
            if after is None and self._chain.evicted_below > stop:
                after = here  # more has left memory meanwhile; what was loaded is passed over
            cursor.loaded(frames, after, self._chain.first)
            return self._reconcile(cursor)

    def _reconcile(self, cursor: Cursor) -> tuple[Counter[str], int]:
        """End what a cursor counts as unread and nothing holds any more; `lock` is held."""
        if cursor.behind is not None or not (cursor.damaged or cursor.head is None):
            return Counter(), 0
        lost, lost_bytes = cursor.reconcile(self._chain.first)
        if lost:
            ends = [End(tenant, CORRUPT, count) for tenant, count in lost.items()]
            self._count(cursor.sink, ends)
            self._note_end(cursor.sink, set(lost), 0, None)
        return lost, lost_bytes

    def load(self, sink: str, extents: Sequence[Extent], place: Place) -> list[Part]:
        """The parts of a batch that was formed by a process that is gone, read from the files.

        What is spoilt or was never written is left out.  Raises OSError.
        """
        assert self.files is not None
        with self.lock:
            pieces = self.files.segments.pieces(place)
        wanted = {position: (start, count) for position, start, count in extents}
        last = max(wanted)
        parts = []
        for here, found in read_from(self.files.disk, pieces, place):
            if not isinstance(found, Found):
                self.files.damaged(here, found)
                continue
            position = found.header.position
            if position > last:
                break
            if position not in wanted:
                continue
            start, count = wanted[position]
            frame = self._frame(here, found.header, found.meta, found.payload, sink)
            share = frame.share_of(sink)
            if share is not None:
                parts.append(Part.of_extent(frame, share, start, count))
        return parts

    def _frame(self, place: Place, header: Header, meta: Meta, payload: bytes, sink: str) -> Frame:
        """A frame as it was appended; what other sinks have of it is none of its business."""
        shares = shares_of(meta)
        if taken := self.manifest.taken(sink, header.position):
            for share in shares:
                if share.sink == sink:
                    share.start = min(taken, share.count)
        age_s = (self._clock.time_us() - header.received_us) / 1e6
        return Frame(
            type=meta.type,
            tenant=meta.tenant,
            request_id=meta.request_id,
            traceparent=meta.traceparent,
            key=meta.key,
            received_us=header.received_us,
            arrived_s=self._clock.monotonic() - max(age_s, 0.0),
            id_base=header.id_base,
            count=header.count,
            payload=payload,
            shares=shares,
            receipt=self._receipts.get(header.position) or _unawaited(len(shares)),
            position=header.position,
            file=place.file,
            offset=place.offset,
        )

    # --- batches and ends ------------------------------------------------------------------

    def form(self, sink: str, parts: list[Part], read: Read) -> int:
        """Note a batch, before its first attempt; up to `read` every record is in a batch now.

        Returns its number.  It is on disk after `commit`.
        """
        extents = extents_of(parts)
        with self.lock:
            number = self.manifest.next_number
            self.manifest.note(number, sink, extents)
            self.manifest.advance(sink, extents, read)
            self._note(Formed(number, sink, extents, read))
            return number

    def split(self, number: int, sink: str, children: list[list[Part]]) -> list[int]:
        """Note the children of a batch in its stead; returns their numbers."""
        with self.lock:
            numbers = self.manifest.split(number, sink, children)
            extents = [extents_of(parts) for parts in children]
            self._note(Split(number, sink, list(zip(numbers, extents, strict=True))))
            return numbers

    def end(
        self,
        sink: str,
        parts: list[Part],
        ends: Sequence[End],
        *,
        number: int = 0,
        read: Read | None = None,
    ) -> list[tuple[Frame, Share]]:
        """Records have ended: those of the batch `number`, or some that were in none, with which
        the sink has read up to `read`.

        One step with the ledger and the manifest, so that no checkpoint comes in between.  Returns
        the frames of which this sink, if it is required, has now settled its whole share.
        """
        with self.lock:
            self._count(sink, ends)
            if number:
                self.manifest.settle(number)
            extents = extents_of(parts) if read is not None else ()
            if read is not None:
                self.manifest.advance(sink, extents, read)
            self._note_end(sink, {end.tenant for end in ends}, number, read, extents)
            return self._settle(sink, parts)

    def end_lost(self, sink: str, ends: Sequence[End], *, number: int = 0) -> None:
        """Records have ended that are in no frame any more: what is left of them was spoilt."""
        with self.lock:
            self._count(sink, ends)
            if number:
                self.manifest.forget(number)
            self._note_end(sink, {end.tenant for end in ends}, number, None)

    def redriven(self, sink: str, tenants: Counter[str], ends: Sequence[End]) -> None:
        """Records came in from the dead letters and ended, in one step."""
        with self.lock:
            for tenant, count in tenants.items():
                self.ledger.redriven(sink, tenant, count)
            self._count(sink, ends)
            self._note_end(sink, set(tenants), 0, None)

    def _count(self, sink: str, ends: Sequence[End]) -> None:
        for tenant, how, count in ends:
            if how == STORED:
                self.ledger.stored(sink, tenant, count)
            elif how == ALREADY_STORED:
                self.ledger.stored(sink, tenant, count, already=True)
            elif how == DEAD_LETTERED:
                self.ledger.dead_lettered(sink, tenant, count)
            else:
                self.ledger.dropped(sink, tenant, count, reason=how)

    def _note(self, entry: Entry) -> None:
        if self.files is not None:
            self.files.journal.queue(entry)

    def _note_end(
        self,
        sink: str,
        tenants: set[str],
        number: int,
        read: Read | None,
        extents: tuple[Extent, ...] = (),
    ) -> None:
        if self.files is not None:
            tallies = [TallyEntry(sink, *self.ledger.tally_of(sink, t)) for t in tenants]
            self._note(Ended(number, sink, read, tallies, extents))

    def settle(self, sink: str, parts: list[Part]) -> list[tuple[Frame, Share]]:
        """The records of `parts` have ended for `sink`, with nothing noted of how."""
        with self.lock:
            return self._settle(sink, parts)

    def _settle(self, sink: str, parts: list[Part]) -> list[tuple[Frame, Share]]:
        done = []
        for part in parts:
            frame = part.frame
            share = frame.share_of(sink)
            assert share is not None, "settled for a sink that was owed nothing"
            share.settled += part.count
            assert share.settled <= share.count, "settled twice"
            if frame.file >= 0 and self.files is not None:
                self.files.settled(frame.file, part.count)
            if share.settled < share.count:
                continue
            frame.settled += 1
            if share.required:
                done.append((frame, share))
            if frame.settled == len(frame.shares):
                self._chain.forget(frame)
        return done

    def frames(self) -> Iterator[Frame]:
        """Every frame in memory that owes something to a sink, oldest first; `lock` is held."""
        return self._chain.frames()

    # --- the end of a log ------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether nothing of it is awaited by anybody."""
        with self.lock:
            return not (
                self._keyed
                or self.manifest.entries()
                or any(
                    cursor.unread_frames or self._cut_in_a_frame(cursor)
                    for cursor in self._cursors.values()
                )
            )

    def _cut_in_a_frame(self, cursor: Cursor) -> bool:
        """Whether a frame is read of which a part is in no batch yet."""
        # What overtook is at or beyond `next_position` and in no batch only while `_read` says so.
        position, _ = self.manifest.reads.get(cursor.sink, (cursor.next_position, 0))
        return position < cursor.next_position or cursor.queued_bytes > 0

    def drop_unread_unlogged(self, sink: str, reason: str) -> Counter[str]:
        """End what a sink has not read and no file holds, as memory goes; returns it by tenant."""
        dropped: Counter[str] = Counter()
        with self.lock:
            cursor = self._cursors.get(sink)
            if cursor is None:
                return dropped
            for frame in self.frames():
                share = frame.share_of(sink)
                if share is None or frame.file >= 0 or frame.position < cursor.next_position:
                    continue
                if frame.position in cursor.passed and frame not in cursor.overtaking:
                    continue  # read already
                dropped[frame.tenant] += share.unread
                cursor.disown(frame.tenant, share)
            ends = [End(tenant, reason, count) for tenant, count in dropped.items()]
            self._count(sink, ends)
            self._note_end(sink, set(dropped), 0, None)
        return dropped

    def close(self) -> bool:
        """Write the state and let go of the files; returns whether everything had settled.

        A settled log is deleted; any other is found by the next process.
        """
        if self.files is None:
            return self.settled
        # First nothing more may come in: what is on its way is published with this, or refused.
        self.files.seal()
        settled = self.settled
        written = False
        if not self.files.closed:
            try:
                # A settled log's too: a crash in the middle of its removal must not undo its end.
                self.checkpoint()
                written = True
            except OSError as error:
                log.error("log %s: its last state cannot be written: %s", self.log_id, error)
        self.files.close(remove=settled and written)
        return settled

    # --- the state on disk -----------------------------------------------------------------

    def commit(self, *, sync: bool) -> None:
        """Write what was noted up to now; with `sync`, so that it survives a power cut.

        Raises OSError.
        """
        if self.files is not None:
            self.files.journal.commit(sync=sync)

    def checkpoint(self) -> None:
        """Write the state anew and delete the files that nothing is awaited of.  Raises OSError."""
        if self.files is not None:
            self.files.checkpoint()

    def note_passed(self) -> None:
        """Note the tallies of records that nobody took, which nothing else notes."""
        with self.lock:
            for sink, tenant in self.ledger.take_unnoted():
                entry = TallyEntry(sink, *self.ledger.tally_of(sink, tenant))
                self._note(Ended(0, sink, None, [entry]))

    def _snapshot(self) -> tuple[Checkpoint, Callable[[], None]]:
        """The state at this moment, and what to do once it is on disk; `lock` is held."""
        assert self.files is not None
        below = {sink: self.manifest.lowest(sink) for sink in self._cursors}
        checkpoint = Checkpoint(
            log_id=self.log_id,
            next_position=self._position,
            next_number=self.manifest.next_number,
            reads=dict(self.manifest.reads),
            batches=self.manifest.items(),
            tallies=[
                TallyEntry(sink, tenant, tally)
                for (sink, tenant), tally in self.ledger.tallies().items()
            ],
            files=self.files.segments.numbers,
            next_file=self.files.next_file,
            ends=self.files.segments.ends,
            ahead=self.manifest.ahead(),
        )

        def written() -> None:
            self.settled_below = below

        return checkpoint, written


def _unawaited(owed: int) -> Receipt:
    """The receipt of a frame whose request is over."""
    return Receipt(count=0, owed=owed, request_flush=_ignore)


def _unheard(frames: Sequence[Frame]) -> None:
    return None


def _ignore(receipt: Receipt) -> None:
    return None
