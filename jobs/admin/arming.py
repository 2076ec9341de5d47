"""What this room registers when Django is ready."""

from __future__ import annotations


def arm() -> None:
    """Put jobs on the dashboard; harmless when called again."""
    from jobs.admin import board, problems

    board.register()
    problems.register()
