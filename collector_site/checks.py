"""Mistakes in the settings as numbered system checks, so that `check` shows all of them at once."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


@register
def check_settings(**_: Any) -> list[CheckMessage]:
    return [
        (Error if mistake.fatal else Warning)(mistake.message, hint=mistake.hint, id=mistake.id)
        for mistake in settings.COLLECTOR.mistakes
    ]
