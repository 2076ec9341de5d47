"""What this room registers when Django is ready: what others read of health monitoring."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from healthmon.pages import admin  # noqa: F401 - importing registers the model's admin
