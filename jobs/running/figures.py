"""What a runner has done since it began.  Plain numbers, each added to under the interpreter's lock
by whoever did it; a report may be a moment old."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from jobs.states import CANCELLED, DEAD, SUCCEEDED


@dataclass(slots=True)
class Figures:
    """`again`: to be tried again; `delayed`: put off at no cost; `refused`: another held the claim
    by then; `lost`: the run was ended for that; `given_back`: claimed and not begun."""

    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    again: int = 0
    delayed: int = 0
    refused: int = 0
    lost: int = 0
    given_back: int = 0
    hung: int = 0

    def count(self, state: str) -> None:
        if state == SUCCEEDED:
            self.succeeded += 1
        elif state == DEAD:
            self.dead += 1
        elif state == CANCELLED:
            self.cancelled += 1

    def report(self) -> dict[str, int]:
        return asdict(self)
