"""What this room registers when Django is ready."""

from __future__ import annotations

from healthmon.admin import panel, problems


def arm() -> None:
    """Put health on the dashboard; harmless when called again."""
    panel.register()
    problems.register()
