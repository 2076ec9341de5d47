"""Who must know that a dead process's log was adopted: hooks, called before anything of it ends.

Filled at `ready()`; called on the adopter's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from control.ports.registry import Registry

AdoptionHook = Callable[[str, frozenset[str]], None]

_hooks: Registry[AdoptionHook] = Registry(what="adoption hook")


def register_adoption(hook: AdoptionHook, *, name: str = "") -> None:
    _hooks.register(name or f"{hook.__module__}.{hook.__qualname__}", hook)


def unregister_adoption(name: str) -> None:
    _hooks.unregister(name)


def adopted(log_id: str, keys: frozenset[str]) -> None:
    """Tell every hook that the log `log_id` was adopted and which keys its frames carry.

    Raises what a hook raised (a database that is away), after all were told: then the log must
    keep its keyed frames, and be told of again later.  Telling twice is harmless.
    """
    failed: Exception | None = None
    for hook in _hooks.values():
        try:
            hook(log_id, keys)
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
