"""What this room registers when Django is ready."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from healthmon import metricservice
    from healthmon.probes import checks  # noqa: F401 - importing registers the checks

    metricservice.register()
