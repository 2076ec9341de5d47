"""The frames in memory: segments linked in the order of the log; guarded by the log's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pipeline.log.cursor import Cursor
from pipeline.log.frame import Frame
from pipeline.log.segment import Segment


class Chain:
    """Segments of frames that still owe something, oldest first; the last takes new ones.

    `nbytes` is what they take; frames whose position is below `evicted_below` are not here.
    """

    def __init__(self, cursors: Callable[[], Iterable[Cursor]], position: int) -> None:
        self._cursors = cursors
        self.first = self.last = Segment(0)
        self.segments = {0: self.first}
        self.nbytes = 0
        self.evicted_below = position

    def append(self, frame: Frame) -> Segment:
        """Take a frame in; returns the segment that has it."""
        segment = self.last
        if segment.full:
            segment = self._roll()
        before = segment.nbytes
        segment.append(frame)
        self.nbytes += segment.nbytes - before
        frame.segment = segment.number
        return segment

    def forget(self, frame: Frame) -> None:
        """A frame owes nothing any more."""
        segment = self.segments.get(frame.segment)
        if segment is None:
            return  # it has left memory before, or was read from a file
        before = segment.nbytes
        segment.forget(frame)
        self.nbytes -= before - segment.nbytes
        if segment is not self.last:
            self._tidy(segment)

    def evict(self) -> list[Frame] | None:
        """Let go of the oldest segment; returns its frames that owe something still.

        None if it has to stay: the last one takes frames, and what no file holds is nowhere else.
        """
        segment = self.first
        if segment.next is None or any(f.pending and f.file < 0 for f in segment.frames):
            return None
        for cursor in self._cursors():
            cursor.evicting(segment)
        self.evicted_below = segment.frames[-1].position + 1
        self._unlink(segment)
        return [frame for frame in segment.frames if frame.pending]

    def frames(self) -> Iterator[Frame]:
        """Every frame that owes something, oldest first."""
        segment: Segment | None = self.first
        while segment is not None:
            yield from (frame for frame in segment.frames if frame.pending)
            segment = segment.next

    def _roll(self) -> Segment:
        """A new last segment; what the old one may let go of, it could not before."""
        sealed, self.last = self.last, Segment(self.last.number + 1)
        self.segments[self.last.number] = self.last
        sealed.next, self.last.prev = self.last, sealed
        self._tidy(sealed)
        return self.last

    def _tidy(self, segment: Segment) -> None:
        """Keep of a segment that takes no more frames only what is still owed."""
        if not segment.unsettled:
            self._unlink(segment)
        elif segment.sparse:
            for cursor in self._cursors():
                cursor.compacting(segment)
            segment.compact()

    def _unlink(self, segment: Segment) -> None:
        self.nbytes -= segment.nbytes
        if segment is self.first:
            assert segment.next is not None, "only the last segment has none after it"
            self.first = segment.next
        del self.segments[segment.number]
        segment.unlink()
