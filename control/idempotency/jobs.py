"""What requests hand in at the desk: a wish for a claim, and a claim's end.

Their fields are guarded by the desk's condition.
"""

from __future__ import annotations

from collections.abc import Callable

from control.idempotency.claims import Claim, Outcome, Wanted
from control.idempotency.store import Round


class Unavailable(Exception):
    """The control database does not answer, so that nobody can tell whether a key was used."""


class Busy(Exception):
    """As many requests as may are waiting for the control database."""


class Ask:
    """A request that wants its claim."""

    __slots__ = ("abandoned", "error", "outcome", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.abandoned = False

    @property
    def answered(self) -> bool:
        return self.outcome is not None or self.error is not None


class End:
    """A claim that is done (`response`: otherwise than foreseen), or is given back."""

    __slots__ = ("claim", "on_recorded", "recorded", "released", "response")

    def __init__(
        self,
        claim: Claim,
        *,
        released: bool,
        response: str | None = None,
        on_recorded: Callable[[], None] | None = None,
    ) -> None:
        self.claim = claim
        self.released = released
        self.response = response
        self.on_recorded = on_recorded
        self.recorded = False


def in_doubt(wanted: Wanted) -> Claim:
    """A claim that may or may not have been made."""
    return Claim(id=wanted.id, missing=())


def round_of(asks: list[Ask], ends: list[End]) -> Round:
    return Round(
        wanted=[ask.wanted for ask in asks],
        finished=[(end.claim.id, end.response) for end in ends if not end.released],
        released=[(end.claim.id, end.claim.resumed) for end in ends if end.released],
    )
