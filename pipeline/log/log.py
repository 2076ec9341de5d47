"""The log, which is the queue: frames appended once, read by every sink through its own cursor.

Request threads append, workers read and settle.  `lock` guards the chain of segments, the
cursors, what is left of every frame, and makes an append one step with its entry in the ledger;
no I/O happens under it.  A pipeline's lock may be held when `lock` is taken, never the reverse.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pipeline.ledger import Ledger
from pipeline.log.checkpoint import Checkpoint
from pipeline.log.cursor import Cursor
from pipeline.log.frame import Frame, Share
from pipeline.log.manifest import Manifest
from pipeline.log.segment import Segment
from pipeline.record import Part


class Log:
    """One process's log, in memory."""

    def __init__(self, *, log_id: str) -> None:
        self.log_id = log_id
        self.lock = threading.Lock()
        self.ledger = Ledger()
        self.manifest = Manifest()
        self._cursors: dict[str, Cursor] = {}
        self._first = self._last = Segment(0)
        self._segments = {0: self._first}
        self._position = 0

    @property
    def next_position(self) -> int:
        """The position that the next frame will have."""
        return self._position

    def cursor(self, sink: str) -> Cursor:
        """The cursor of a sink, made at the log's end on the first call."""
        with self.lock:
            return self._cursors.setdefault(sink, Cursor(sink))

    def remove_cursor(self, sink: str) -> None:
        """Forget a sink that is owed nothing any more."""
        with self.lock:
            del self._cursors[sink]

    def append(self, frame: Frame) -> None:
        """Take a frame in; from here on its records are owed to each sink of its shares."""
        with self.lock:
            frame.position = self._position
            self._position += 1
            segment = self._last
            if segment.full:
                segment = self._roll()
            segment.append(frame)
            frame.segment = segment.number
            for share in frame.shares:
                self.ledger.accepted(share.sink, frame.tenant, share.count)
                self._cursors[share.sink].appended(segment, frame, share)

    def read(self, cursor: Cursor) -> tuple[Frame, Share] | None:
        """The next frame for a cursor's sink, and its share."""
        with self.lock:
            return cursor.read()

    def settle(self, sink: str, parts: list[Part]) -> list[tuple[Frame, Share]]:
        """The records of `parts` have ended for `sink`.

        Returns the frames of which this sink, if it is required, has now settled its whole share.
        """
        done = []
        with self.lock:
            for part in parts:
                frame = part.frame
                share = frame.share_of(sink)
                assert share is not None, "settled for a sink that was owed nothing"
                share.settled += part.count
                assert share.settled <= share.count, "settled twice"
                if share.settled < share.count:
                    continue
                frame.settled += 1
                if share.required:
                    done.append((frame, share))
                if frame.settled == len(frame.shares):
                    self._forget(frame)
        return done

    def _roll(self) -> Segment:
        """A new last segment; what the old one may let go of, it could not before."""
        sealed, self._last = self._last, Segment(self._last.number + 1)
        self._segments[self._last.number] = self._last
        sealed.next, self._last.prev = self._last, sealed
        self._tidy(sealed)
        return self._last

    def _forget(self, frame: Frame) -> None:
        segment = self._segments[frame.segment]
        segment.forget(frame)
        if segment is not self._last:
            self._tidy(segment)

    def _tidy(self, segment: Segment) -> None:
        """Keep of a segment that takes no more frames only what is still owed."""
        if not segment.unsettled:
            if segment is self._first:
                assert segment.next is not None, "only the last segment has none after it"
                self._first = segment.next
            del self._segments[segment.number]
            segment.unlink()
        elif segment.sparse:
            for cursor in self._cursors.values():
                cursor.compacting(segment)
            segment.compact()

    def frames(self) -> Iterator[Frame]:
        """Every frame that still owes something to a sink, oldest first; `lock` must be held."""
        segment: Segment | None = self._first
        while segment is not None:
            yield from (frame for frame in segment.frames if frame.pending)
            segment = segment.next

    def checkpoint(self) -> Checkpoint:
        """How far each sink has settled, and the ledger at that moment."""
        with self.lock:
            positions = dict.fromkeys(self._cursors, self._position)
            for frame in self.frames():
                for share in frame.shares:
                    owed = share.settled < share.count
                    if owed and positions.get(share.sink, 0) > frame.position:
                        positions[share.sink] = frame.position
            return Checkpoint(
                log_id=self.log_id, positions=positions, tallies=self.ledger.tallies()
            )
