"""Why this process should not be sent traffic: named checks, read by `/readyz` and `GET /health`.

A check returns None when it is content, or the cause in one sentence. It must be quick: it runs
on the threads that are kept for health checks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from control.ports.registry import Registry

logger = logging.getLogger(__name__)

ReadinessCheck = Callable[[], str | None]

_checks: Registry[ReadinessCheck] = Registry(what="readiness check")


def register_readiness(name: str, check: ReadinessCheck) -> None:
    _checks.register(name, check)


def unregister_readiness(name: str) -> None:
    _checks.unregister(name)


def readiness() -> dict[str, str | None]:
    """Each check's cause, None where it is content. A check that fails counts as a cause."""
    causes: dict[str, str | None] = {}
    for name, check in sorted(_checks.items()):
        try:
            causes[name] = check()
        except Exception as error:
            logger.exception("readiness check failed", extra={"check": name})
            causes[name] = f"the check itself failed: {type(error).__name__}"
    return causes
