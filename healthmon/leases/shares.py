"""How many slots are whose, and which ones change hands.  Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from healthmon.leases.store import Picture


def share(checker: str, living: Sequence[str], slots: int) -> int:
    """How many slots a checker should hold: as many as any other, give or take one.

    All see the same list, so that their shares add up to all slots.
    """
    rank = sorted(living).index(checker)
    each, rest = divmod(slots, len(living))
    return each + (1 if rank < rest else 0)


def surplus(checker: str, picture: Picture) -> list[int]:
    """What this checker holds beyond its share; the lowest slots stay."""
    held = sorted(picture.epochs_of(checker))
    return held[share(checker, picture.living, len(picture.slots)) :]


def wanted(checker: str, picture: Picture, *, sparing: bool = False) -> list[int]:
    """Free slots that this checker should take; `sparing` those whose lease has only run out.

    Each checker begins at a place of its own, so that two of them seldom want the same one.
    """
    missing = share(checker, picture.living, len(picture.slots)) - len(picture.epochs_of(checker))
    if missing <= 0:
        return []
    free = [
        one.slot
        for one in picture.slots
        if one.free and one.holder != checker and not (sparing and one.holder)
    ]
    start = len(free) * picture.living.index(checker) // len(picture.living)
    return (free[start:] + free[:start])[:missing]
