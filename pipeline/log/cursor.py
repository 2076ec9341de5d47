"""A cursor: where one sink stands in the log, and what it has not read yet.

Moved by the log alone, under the log's lock.  `unread_records` and `unread_bytes` may be looked
at without it: they are hints for deciding whether a batch can close.
"""

from __future__ import annotations

from collections import Counter

from pipeline.log.frame import Frame, Share
from pipeline.log.segment import Segment


class Cursor:
    """One sink's place in the log.

    While anything is unread, the cursor points at the next frame that holds a share for its
    sink; a segment with such a frame is never taken out of the chain.
    """

    __slots__ = (
        "_index",
        "_segment",
        "sink",
        "unread_bytes",
        "unread_frames",
        "unread_records",
        "unread_tenants",
    )

    def __init__(self, sink: str) -> None:
        self.sink = sink
        self.unread_frames = 0
        self.unread_records = 0
        self.unread_bytes = 0
        self.unread_tenants: Counter[str] = Counter()
        self._segment: Segment | None = None
        self._index = 0

    @property
    def head(self) -> Frame | None:
        """The next frame to read, left where it is."""
        return self._segment.frames[self._index] if self._segment else None

    def appended(self, segment: Segment, frame: Frame, share: Share) -> None:
        """A frame with a share for this sink is now the last of `segment`."""
        if self._segment is None:
            self._segment, self._index = segment, len(segment.frames) - 1
        self.unread_frames += 1
        self.unread_records += share.count
        self.unread_bytes += share.nbytes
        self.unread_tenants[frame.tenant] += share.count

    def compacting(self, segment: Segment) -> None:
        """`segment` is about to lose its settled frames: stay at the same frame."""
        if segment is self._segment:
            self._index = sum(1 for frame in segment.frames[: self._index] if frame.pending)

    def read(self) -> tuple[Frame, Share] | None:
        """The next frame and this sink's share of it; None when everything is read."""
        if self._segment is None:
            return None
        frame = self._segment.frames[self._index]
        share = frame.share_of(self.sink)
        assert share is not None, "a cursor points only at frames of its own sink"
        self.unread_frames -= 1
        self.unread_records -= share.count
        self.unread_bytes -= share.nbytes
        left = self.unread_tenants[frame.tenant] - share.count
        if left:
            self.unread_tenants[frame.tenant] = left
        else:
            del self.unread_tenants[frame.tenant]
        self._advance()
        return frame, share

    def _advance(self) -> None:
        segment, index = self._segment, self._index + 1
        while segment is not None and self.unread_frames:
            frames = segment.frames
            while index < len(frames):
                if frames[index].share_of(self.sink) is not None:
                    self._segment, self._index = segment, index
                    return
                index += 1
            segment, index = segment.next, 0
        self._segment = None
