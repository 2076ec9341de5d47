"""A segment: a run of frames in the order of the log, the unit in which the log forgets.

Segments are linked.  One whose frames have all settled is taken out of the chain wherever it
stands, and one that is half settled is compacted, so that a sink that lags keeps little more than
the frames that hold something for it.  Guarded by the log's lock.
"""

from __future__ import annotations

from pipeline.log.frame import Frame

FRAMES_PER_SEGMENT = 256
BYTES_PER_SEGMENT = 4 * 1024 * 1024
# What a frame takes in memory besides its payload, with its share and its receipt.
FRAME_COST = 512


class Segment:
    """Frames held in memory; `nbytes` is what they take, of which the settled give back."""

    __slots__ = ("frames", "nbytes", "next", "number", "prev", "unsettled")

    def __init__(self, number: int) -> None:
        self.number = number
        self.frames: list[Frame] = []
        self.unsettled = 0
        self.nbytes = 0
        self.prev: Segment | None = None
        self.next: Segment | None = None

    @property
    def full(self) -> bool:
        return len(self.frames) >= FRAMES_PER_SEGMENT or self.nbytes >= BYTES_PER_SEGMENT

    def append(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.unsettled += 1
        self.nbytes += len(frame.payload) + FRAME_COST

    def forget(self, frame: Frame) -> None:
        """Let go of a settled frame's payload; the frame itself goes with a compaction."""
        self.nbytes -= len(frame.payload) + FRAME_COST
        frame.payload = b""
        self.unsettled -= 1

    @property
    def sparse(self) -> bool:
        """Whether at least half of the frames have settled, so that a compaction pays."""
        return self.unsettled * 2 <= len(self.frames)

    def compact(self) -> None:
        """Keep only the frames that still owe something."""
        self.frames = [frame for frame in self.frames if frame.pending]

    def unlink(self) -> None:
        """Leave the chain, as any segment but the last may; nothing refers to it then."""
        assert self.next is not None, "the last segment takes frames still"
        self.next.prev = self.prev
        if self.prev is not None:
            self.prev.next = self.next
