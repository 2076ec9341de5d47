"""How many probes may run at once: in all, to one host, in one group.

A probe that may not start waits in a line of the limit that held it back: its host's, its group's,
or the one for all.  Whoever ends has the lines it leaves looked at again.  A place taken out of a
line either starts or goes to the line of the next limit it meets, so that nobody is forgotten:
whoever waits, waits for somebody who runs, or who stands in another line.

Used on the checker's event loop alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Place:
    """One probe's claim, and what it counts towards; no `host` or `group` 0 counts towards none.

    `parked` says that it had to wait for room.
    """

    target_id: int
    due_s: float
    host: str = ""
    group: int = 0
    parked: bool = False


@dataclass(slots=True)
class _Line:
    """Those who share a limit; `limit` 0 is none."""

    limit: int
    running: int = 0
    waiting: deque[Place] = field(default_factory=deque)

    @property
    def full(self) -> bool:
        return bool(self.limit) and self.running >= self.limit


class Limits:
    def __init__(self, *, total: int, per_host: int, per_group: int) -> None:
        self._all = _Line(total)
        self._per_host, self._per_group = per_host, per_group
        self._lines: dict[Hashable, _Line] = {}
        self.parked = 0

    @property
    def running(self) -> int:
        return self._all.running

    def enter(self, place: Place) -> bool:
        """Whether the probe may start now; if not, it is parked and will come out of `leave`."""
        if self._admit(place):
            return True
        place.parked = True
        self.parked += 1
        return False

    def crowded(self, most: int) -> list[tuple[str, int]]:
        """The hosts for which most wait, with how many."""
        waiting = [
            (key, len(line.waiting))
            for key, line in self._lines.items()
            if isinstance(key, str) and line.waiting
        ]
        return sorted(waiting, key=lambda one: -one[1])[:most]

    def leave(self, place: Place) -> list[Place]:
        """The probe has ended; returns those parked that are running with this."""
        lines = self._lines_of(place)
        for line in lines:
            line.running -= 1
        started: list[Place] = []
        for line in lines:
            while line.waiting and not line.full:
                candidate = line.waiting.popleft()
                if self._admit(candidate):
                    started.append(candidate)
                elif self._all.full:
                    break  # it stands in the line for all now, and others would only follow it
        self.parked -= len(started)
        self._forget(place)
        return started

    def _admit(self, place: Place) -> bool:
        lines = self._lines_of(place)
        for line in lines:
            if line.full:
                line.waiting.append(place)
                return False
        for line in lines:
            line.running += 1
        return True

    def _lines_of(self, place: Place) -> list[_Line]:
        """The lines of a place, the narrowest first."""
        lines = []
        if self._per_host and place.host:
            lines.append(self._line(place.host, self._per_host))
        if self._per_group and place.group:
            lines.append(self._line(place.group, self._per_group))
        lines.append(self._all)
        return lines

    def _line(self, key: Hashable, limit: int) -> _Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(limit)
        return line

    def _forget(self, place: Place) -> None:
        """A line that nobody runs or stands in is not kept."""
        for key in (place.host, place.group):
            line = self._lines.get(key)
            if line is not None and not line.running and not line.waiting:
                del self._lines[key]
