"""A cursor: where one sink stands in the log, and what it has not read yet.

Moved by the log alone, under the log's lock.  `head`, `unread_records` and `unread_bytes` may be
looked at without it, each for itself: they are hints for deciding whether a batch can close.
"""

from __future__ import annotations

from collections import Counter

from pipeline.log.frame import Frame, Share
from pipeline.log.segment import Segment


class Cursor:
    """One sink's place in the log.

    While anything is unread, `head` is the next frame that holds a share for its sink, left where
    it is; a segment with such a frame is never taken out of the chain.
    """

    __slots__ = (
        "_index",
        "_segment",
        "head",
        "sink",
        "unread_bytes",
        "unread_frames",
        "unread_records",
        "unread_tenants",
    )

    def __init__(self, sink: str) -> None:
        self.sink = sink
        self.head: Frame | None = None
        self.unread_frames = 0
        self.unread_records = 0
        self.unread_bytes = 0
        self.unread_tenants: Counter[str] = Counter()
        # Where `head` stands; without meaning while there is none.
        self._segment: Segment | None = None
        self._index = 0

    def appended(self, segment: Segment, frame: Frame, share: Share) -> None:
        """A frame with a share for this sink is now the last of `segment`."""
        self.unread_frames += 1
        self.unread_records += share.count
        self.unread_bytes += share.nbytes
        self.unread_tenants[frame.tenant] += share.count
        if self.head is None:
            self._segment, self._index = segment, len(segment.frames) - 1
            self.head = frame

    def compacting(self, segment: Segment) -> None:
        """`segment` is about to lose its settled frames: stay at the same frame."""
        if segment is self._segment and self.head is not None:
            self._index = sum(1 for frame in segment.frames[: self._index] if frame.pending)

    def read(self) -> tuple[Frame, Share] | None:
        """The next frame and this sink's share of it; None when everything is read."""
        frame = self.head
        if frame is None:
            return None
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
                    self.head = frames[index]
                    return
                index += 1
            segment, index = segment.next, 0
        self.head = self._segment = None
