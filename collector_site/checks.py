"""Mistakes in the settings as numbered system checks, so that `check` shows all of them at once."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from control.config.filesystems import NETWORK, VOLATILE, kind_of


@register
def check_settings(**_: Any) -> list[CheckMessage]:
    return [
        (Error if mistake.fatal else Warning)(mistake.message, hint=mistake.hint, id=mistake.id)
        for mistake in settings.COLLECTOR.mistakes
    ]


@register
def check_log_directory(**_: Any) -> list[CheckMessage]:
    """Warn of a place that does not keep what `ack=wal` promises."""
    directory = settings.COLLECTOR.wal_directory
    kind = kind_of(directory)
    if kind in VOLATILE:
        message = (
            f"The log's directory {directory} lies in memory ({kind}): a restart of the machine "
            "loses what was acknowledged and not yet delivered."
        )
    elif kind in NETWORK:
        message = (
            f"The log's directory {directory} lies on a network file system ({kind}): its syncs "
            "and locks may not hold what the log needs of them."
        )
    else:
        return []
    return [
        Warning(
            message,
            hint="Set COLLECTOR_WAL_DIRECTORY (or COLLECTOR_DATA_DIR) to a local disk.",
            id="collector.W005",
        )
    ]
