#!/usr/bin/env python3
"""Command-line entry point, also for a Python that lacks the packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent / ".venv"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "collector_site.settings")
    try:
        from django.core.management import execute_from_command_line
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "django":
            raise
        go_on_in_the_environment()
        raise SystemExit("Django is not installed here: run `make setup` first.") from error
    execute_from_command_line(sys.argv)


def go_on_in_the_environment() -> None:
    """Become the virtual environment's Python; returns where there is none, or this is it."""
    python = VENV / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != VENV.resolve():
        sys.stdout.flush()
        os.execv(python, [str(python), *sys.argv])  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
