"""Has a process know the API keys before it says that it is ready.

Started by `lifecycle` after the heart, which reads the keys again from then on. Holds no state
but the ring.
"""

from __future__ import annotations

from control.auth.keys import KeyRing, keyring
from control.ports.readiness import register_readiness

ORDER = 10
# Commands answer no requests.
ROLES_WITHOUT_KEYS = frozenset({"command", "jobs"})


class KeyService:
    name = "api-keys"
    order = ORDER

    def __init__(self, *, ring: KeyRing | None = None) -> None:
        self._ring = ring

    def start(self, role: str) -> None:
        if role in ROLES_WITHOUT_KEYS:
            return
        ring = self._ring or keyring()
        register_readiness("api_keys", lambda: _cause(ring))
        # What was read before a fork may be old. Without a database the snapshot serves.
        ring.invalidate()
        _ = ring.known

    def stop(self, deadline_s: float) -> None:
        """The ring has nothing to end."""


def _cause(ring: KeyRing) -> str | None:
    if ring.loaded:
        return None
    return "the API keys have not been read yet: the control database does not answer"
