"""What a runner has done since it began, here and in the metrics.

Plain numbers, each added to under the interpreter's lock by whoever did it; a report may be a
moment old.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from jobs import metrics
from jobs.states import CANCELLED, DEAD, SUCCEEDED
from jobs.store.protocol import Again, Ended


@dataclass(slots=True)
class Figures:
    """`again`: to be tried again; `delayed`: put off at no cost; `refused`: another held the claim
    by then; `lost`: the run was ended for that; `given_back`: not begun, or stopped; `hung`: its
    worker was given up."""

    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    again: int = 0
    delayed: int = 0
    refused: int = 0
    lost: int = 0
    given_back: int = 0
    hung: int = 0

    def lose(self, type_name: str) -> None:
        """A run ended whose job was another's by then, or whose worker was given up."""
        self.lost += 1
        metrics.count_attempt(type_name, metrics.LOST)

    def give_back(self, type_name: str) -> None:
        """A job went back that was not begun, or was stopped."""
        self.given_back += 1
        metrics.count_attempt(type_name, metrics.GIVEN_BACK)

    def settle(
        self,
        type_name: str,
        outcome: Ended | Again,
        took_s: float,
        *,
        kept: bool,
        stopped: bool = False,
    ) -> None:
        """What became of a run was written, or was refused."""
        if not kept:
            self.refused += 1
            metrics.count_fenced()
        elif isinstance(outcome, Ended):
            self._end(outcome.state)
            metrics.observe_ended(type_name, outcome.state, took_s)
            if outcome.spent:
                metrics.count_attempt(type_name, outcome.state)
        elif outcome.spent:
            self.again += 1
            metrics.count_attempt(type_name, metrics.RETRYING)
        elif stopped:
            self.give_back(type_name)
        else:
            self.delayed += 1
            metrics.count_attempt(type_name, metrics.DELAYED)

    def _end(self, state: str) -> None:
        if state == SUCCEEDED:
            self.succeeded += 1
        elif state == DEAD:
            self.dead += 1
        elif state == CANCELLED:
            self.cancelled += 1

    def report(self) -> dict[str, int]:
        return asdict(self)
