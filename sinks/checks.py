"""System checks of the sinks: what the settings allow can be imported and describes itself.

Rows are not read here: checks run before migrations.  What is wrong with a row shows on its page,
on the dashboard and in /readyz.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from sinks.options import describe_options
from sinks.registry import BackendError, candidate_paths, load_backend


@register
def check_backends(**_: Any) -> list[CheckMessage]:
    """Every backend that may be chosen is importable."""
    found: list[CheckMessage] = []
    for path in candidate_paths():
        try:
            describe_options(load_backend(path).cls.Options)
        except BackendError as error:
            found.append(
                Error(
                    f"A sink backend that the settings allow cannot be used: {error}",
                    hint="Correct sinks.allowed_paths (COLLECTOR_SINK_ALLOWED_PATHS), or install "
                    "the package that has it.",
                    id="sinks.E001",
                )
            )
    return found
