"""What the `flips` sink has stored, as it tells others of it inside its transaction.

A hook is called with all that one transaction stores: what it writes to the control database is
kept or lost together with the flips, and what it raises undoes them, to be tried again.  So a
hook does no I/O elsewhere.  Hooks are registered at `ready()` and run on the sink's worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from control.ports.registry import Registry
from healthmon.targets.models import Target
from healthmon.truth.changes import Change
from healthmon.truth.models import Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipStored:
    """One flip that moved its target's state.

    `incident` is the one it opened, closed, or left open; None when there is none.  One that was
    found and confirmed too late to move the state is stored, and told to nobody.
    """

    change: Change
    target: Target
    incident: Incident | None = None
    opened: bool = False
    closed: bool = False
    was_flapping: bool = False

    @property
    def suppressed_by_id(self) -> int | None:
        """The parent that was down when the incident opened."""
        return None if self.incident is None else self.incident.suppressed_by_id

    @property
    def flapping_began(self) -> bool:
        return self.change.flapping and not self.was_flapping

    @property
    def flapping_ended(self) -> bool:
        """What was held while it flapped may be told now, if it still holds."""
        return self.was_flapping and not self.change.flapping

    @property
    def is_change(self) -> bool:
        """False for the end of flapping alone, which is from a status to itself."""
        return self.change.from_status != self.change.to_status


FlipHook: TypeAlias = "Callable[[Sequence[FlipStored]], None]"

_hooks: Registry[FlipHook] = Registry(what="flip hook")


def register_flip_hook(hook: FlipHook, *, name: str = "") -> None:
    """Have `hook` called for stored flips; the same name (by default the function's) replaces."""
    _hooks.register(name or f"{hook.__module__}.{getattr(hook, '__qualname__', hook)}", hook)


def unregister_flip_hook(name: str) -> None:
    _hooks.unregister(name)


def tell_hooks(flips: Sequence[FlipStored]) -> None:
    for hook in _hooks.values():
        hook(flips)
