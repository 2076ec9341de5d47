"""System checks of the channels: the kinds that the settings name can be imported."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from healthmon.notify.registry import KindError, allowed_paths, kind_of
from sinks.options import describe_options


@register
def check_channel_kinds(**_: Any) -> list[CheckMessage]:
    """Every kind of channel that the settings add is importable and describes itself."""
    found: list[CheckMessage] = []
    for path in allowed_paths():
        try:
            describe_options(kind_of(path).Options)
        except KindError as error:
            found.append(
                Error(
                    f"A kind of notification channel cannot be used: {error}",
                    hint="Correct monitoring.channel_kinds (COLLECTOR_CHANNEL_KINDS), or install "
                    "the package that has it.",
                    id="healthmon.E020",
                )
            )
    return found
