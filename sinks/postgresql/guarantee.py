"""What this process found out about databases where proofs are forbidden, for those who ask later.

A sink object that writes and the one that the admin makes to ask for its risks are two; both know
the database by its DSN, of which only a digest is kept.  `_lock` guards the findings.
"""

from __future__ import annotations

import hashlib
import threading

_lock = threading.Lock()
_risks: dict[str, str] = {}
_MOST = 1_000


def found_forbidden(dsn: str, cause: str) -> bool:
    """Batches can be stored there at least once only; whether that is news."""
    with _lock:
        known = _key(dsn) in _risks
        if len(_risks) >= _MOST and not known:
            del _risks[next(iter(_risks))]
        _risks[_key(dsn)] = f"at least once: {cause}"
        return not known


def found_sound(dsn: str) -> bool:
    """Proofs are kept there; whether that is news."""
    with _lock:
        return _risks.pop(_key(dsn), None) is not None


def risk_of(dsn: str) -> str:
    """The risk as last found by this process; "" when there is none, or nobody looked."""
    with _lock:
        return _risks.get(_key(dsn), "")


def _key(dsn: str) -> str:
    return hashlib.sha256(dsn.encode()).hexdigest()
