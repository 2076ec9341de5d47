"""A cursor: where one sink stands in the log, and what it has not read yet.

What is unread stands in a line: the frames of `loaded`, those in the segment files from `behind`
on, those in memory from the chained one on.  A frame of a tenant that has nothing in the line does
not join it but overtakes: it is at hand at once, and the line passes it over when it comes there.
So nobody waits behind what another tenant has piled up, be it in the files.  How many may overtake
at a time is bounded, as they are kept in memory; beyond that they join the line.

Moved by the log alone, under the log's lock.  `head` and the `unread_*` may be looked at without
it, each for itself: they are hints for deciding whether a batch can close.
"""

from __future__ import annotations

from collections import Counter, deque

from pipeline.log.frame import Frame, Share
from pipeline.log.segment import Segment
from pipeline.log.segmentfile import Place

MIB = 1024 * 1024
# How many may overtake a line that stands, and what of them may be in no batch yet.
OVERTAKING_FRAMES = 200_000
OVERTAKING_BYTES = 16 * MIB


class Cursor:
    """One sink's place in the log.

    `head` is the next frame that holds a share for its sink; None when everything is read, or when
    what comes next has to be loaded from the files first.
    """

    __slots__ = (
        "_chained",
        "_index",
        "_loaded",
        "_overtaking_bytes",
        "_overtaking_tenants",
        "_passed_order",
        "_segment",
        "behind",
        "behind_since_s",
        "damaged",
        "head",
        "loaded_bytes",
        "next_load",
        "next_position",
        "overtaking",
        "passed",
        "queued_bytes",
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
        # Below the first every frame is read, below the second read or loaded.
        self.next_position = self.next_load = 0
        self.loaded_bytes = 0
        # Where the files hold the next frame that is neither loaded nor in memory.
        self.behind: Place | None = None
        # When that frame, or one shortly before it, arrived.
        self.behind_since_s: float | None = None
        # Whether anything spoilt was met in the files since the cursor fell behind.
        self.damaged = False
        # Frames that have overtaken the line and were not read yet; those among all that did which
        # the line has still to pass over; and what was read and is in no batch yet.
        self.overtaking: list[Frame] = []
        self.passed: set[int] = set()
        self.queued_bytes = 0
        self._passed_order: deque[int] = deque()
        self._overtaking_tenants: Counter[str] = Counter()
        self._overtaking_bytes = 0
        self._loaded: deque[Frame] = deque()
        # The first unread frame in memory, and where it stands; none while the cursor is behind.
        self._chained: Frame | None = None
        self._segment: Segment | None = None
        self._index = 0

    def owed(self, tenant: str, share: Share) -> None:
        """A frame that is unread, wherever it is, is counted."""
        self.unread_frames += 1
        self.unread_records += share.unread
        self.unread_bytes += share.weight(share.unread)
        self.unread_tenants[tenant] += share.unread

    def appended(self, segment: Segment, frame: Frame, share: Share) -> None:
        """A frame with a share for this sink is now the last of `segment`."""
        overtakes = self.line_frames > 0 and self._may_overtake(frame.tenant)
        self.owed(frame.tenant, share)
        if overtakes:
            self.overtaking.append(frame)
            self._overtaking_tenants[frame.tenant] += share.unread
            self._overtaking_bytes += len(frame.payload)
            self.passed.add(frame.position)
            self._passed_order.append(frame.position)
            return
        if self._chained is None and self.behind is None:
            self._segment, self._index = segment, len(segment.frames) - 1
            self._chained = frame
            if not self._loaded:
                self.head = frame

    @property
    def line_frames(self) -> int:
        """How many frames stand in the line."""
        return self.unread_frames - len(self.overtaking)

    def _may_overtake(self, tenant: str) -> bool:
        """Whether a tenant has nothing in the line, and there is room beside it."""
        return (
            self.unread_tenants.get(tenant, 0) == self._overtaking_tenants.get(tenant, 0)
            and len(self.passed) < OVERTAKING_FRAMES
            and self.queued_bytes + self._overtaking_bytes < OVERTAKING_BYTES
        )

    def read_overtaking(self) -> list[tuple[Frame, Share]]:
        """The frames that have overtaken the line, and this sink's shares of them."""
        overtaking, self.overtaking = self.overtaking, []
        self._overtaking_tenants.clear()
        self._overtaking_bytes = 0
        read = []
        for frame in overtaking:
            share = frame.share_of(self.sink)
            assert share is not None, "only frames of its own sink overtake"
            self.disown(frame.tenant, share)
            self.queued_bytes += share.nbytes
            read.append((frame, share))
        return read

    def compacting(self, segment: Segment) -> None:
        """`segment` is about to lose its settled frames: stay at the same frame."""
        if segment is self._segment and self._chained is not None:
            self._index = sum(1 for frame in segment.frames[: self._index] if frame.pending)

    def evicting(self, segment: Segment) -> None:
        """`segment` is about to leave memory: what is unread of it is read from the files."""
        if self._chained is not None and segment is self._segment:
            self.behind = Place(self._chained.file, self._chained.offset)
            self.behind_since_s = self._chained.arrived_s
            self._leave_chain()

    def loaded(self, frames: list[Frame], behind: Place | None, first: Segment) -> None:
        """Frames came from the files; without `behind` the rest is in memory, from `first` on."""
        self._loaded.extend(frames)
        if frames:
            self.next_load = frames[-1].position + 1
            self.behind_since_s = frames[-1].arrived_s
        self.loaded_bytes += sum(len(frame.payload) for frame in frames)
        self.behind = behind
        if behind is None:
            self._find(first, 0, self.next_load)
        self._look()

    def read(self) -> tuple[Frame, Share] | None:
        """The next frame and this sink's share of it; None if none is at hand."""
        frame = self.head
        if frame is None:
            return None
        share = frame.share_of(self.sink)
        assert share is not None, "a cursor points only at frames of its own sink"
        self.disown(frame.tenant, share)
        self.next_position = frame.position + 1
        while self._passed_order and self._passed_order[0] < self.next_position:
            self.passed.discard(self._passed_order.popleft())
        self.next_load = max(self.next_load, self.next_position)
        if self._loaded:
            self._loaded.popleft()
            self.loaded_bytes -= len(frame.payload)
        elif self.line_frames and self._segment is not None:
            self._find(self._segment, self._index + 1, self.next_position)
        else:
            self._leave_chain()
        self._look()
        return frame, share

    def reconcile(self, first: Segment) -> tuple[Counter[str], int]:
        """Count anew what can be read; returns what was counted and is not there, by tenant.

        To be called when the files have been read to their end and something in them was spoilt.
        The second number is the room that was set aside for it (bytes).
        """
        there: Counter[str] = Counter()
        frames = nbytes = 0
        for frame in self._unread(first):
            share = frame.share_of(self.sink)
            assert share is not None
            there[frame.tenant] += share.unread
            frames, nbytes = frames + 1, nbytes + share.weight(share.unread)
        lost, lost_bytes = self.unread_tenants - there, self.unread_bytes - nbytes
        self.unread_frames, self.unread_records = frames, there.total()
        self.unread_bytes, self.unread_tenants = nbytes, there
        self.damaged = False
        return lost, lost_bytes

    def _unread(self, first: Segment) -> list[Frame]:
        frames = [*self.overtaking, *self._loaded]
        if self._chained is not None:
            segment: Segment | None = first
            while segment is not None:
                frames += [
                    frame
                    for frame in segment.frames
                    if frame.position >= self._chained.position
                    and frame.position not in self.passed
                    and frame.share_of(self.sink) is not None
                ]
                segment = segment.next
        return frames

    def disown(self, tenant: str, share: Share) -> None:
        """A frame is unread no longer."""
        self.unread_frames -= 1
        self.unread_records -= share.unread
        self.unread_bytes -= share.weight(share.unread)
        left = self.unread_tenants[tenant] - share.unread
        if left:
            self.unread_tenants[tenant] = left
        else:
            del self.unread_tenants[tenant]

    def _leave_chain(self) -> None:
        self._chained = self._segment = None
        self._look()

    def _look(self) -> None:
        self.head = self._loaded[0] if self._loaded else self._chained

    def _find(self, segment: Segment | None, index: int, position: int) -> None:
        """The next frame in memory for this sink, from `position` on."""
        while segment is not None:
            frames = segment.frames
            while index < len(frames):
                frame = frames[index]
                if (
                    frame.position >= position
                    and frame.position not in self.passed
                    and frame.share_of(self.sink) is not None
                ):
                    self._segment, self._index, self._chained = segment, index, frame
                    return
                index += 1
            segment, index = segment.next, 0
        self._chained = self._segment = None
