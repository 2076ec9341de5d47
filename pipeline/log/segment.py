"""A segment: a run of consecutive frames, the unit in which the log forgets.

Segments are linked in the order of the log.  A segment whose frames have all settled is taken
out of the chain wherever it stands, so that a sink that lags keeps only the segments that hold
something for it.  Guarded by the log's lock.
"""

from __future__ import annotations

from pipeline.log.frame import Frame

FRAMES_PER_SEGMENT = 256


class Segment:
    """Frames held in memory."""

    __slots__ = ("frames", "next", "prev", "unsettled")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.unsettled = 0
        self.prev: Segment | None = None
        self.next: Segment | None = None

    @property
    def full(self) -> bool:
        return len(self.frames) >= FRAMES_PER_SEGMENT

    def append(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.unsettled += 1

    def forget(self, frame: Frame) -> bool:
        """Drop the payload of a settled frame; True once nothing here is owed to anyone."""
        frame.payload = b""
        self.unsettled -= 1
        return self.unsettled == 0
