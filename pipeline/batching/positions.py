"""Where the records stand in the log that were read and are in no batch: what came first of them.

A passive object, guarded by the pipeline's lock.
"""

from __future__ import annotations

from collections import deque

from pipeline.record import Part


class Positions:
    """What of each frame is still to be batched, by the frame's position.

    Positions come ascending, both of those that came in the log's order and of those that overtook
    others; what is done with stays until all before it is.
    """

    def __init__(self) -> None:
        self._left: dict[int, Part] = {}
        self._line: deque[int] = deque()
        self._overtaken: deque[int] = deque()

    def __len__(self) -> int:
        """How many frames are remembered, those included that are done with."""
        return len(self._line) + len(self._overtaken)

    def add(self, part: Part, *, overtaken: bool) -> None:
        position = part.frame.position
        self._left[position] = part
        (self._overtaken if overtaken else self._line).append(position)

    def put_back(self, rest: Part) -> None:
        """What is left of a frame of which a part was taken."""
        self._left[rest.frame.position] = rest

    def remove(self, part: Part) -> None:
        del self._left[part.frame.position]

    def parts(self) -> list[Part]:
        """All parts, as they stand in the log."""
        return [self._left[position] for position in sorted(self._left)]

    def first(self) -> Part | None:
        """The part of the frame that came first."""
        left, heads = self._left, []
        for ring in (self._line, self._overtaken):
            while ring and ring[0] not in left:
                ring.popleft()
            if ring:
                heads.append(ring[0])
        return left[min(heads)] if heads else None
