"""What this room registers when Django is ready."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from control.processes import lifecycle
    from jobs.types import checks, configsection  # noqa: F401  importing registers the checks
    from jobs.types.service import service

    configsection.register()

    lifecycle.register(service)
