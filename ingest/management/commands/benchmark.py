"""`manage.py benchmark`: the same as `python -m benchmarks`, where commands are looked for.

Runs on the command's main thread; everything it measures runs in processes of their own.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = """\
Measure Collector against baselines taken in the same run (`python -m benchmarks`). This
installation's data is not touched.
"""
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name,
            subcommand,
            formatter_class=RawDescriptionHelpFormatter,
            epilog=self._benchmarks().told(),
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        self._benchmarks().add_arguments(parser)

    def handle(self, **options: Any) -> None:
        sys.exit(self._benchmarks().run(options))

    @staticmethod
    def _benchmarks() -> Any:
        # Beside the apps and not below them: a deployment may leave the benchmarks out.
        try:
            return import_module("benchmarks.cli")
        except ModuleNotFoundError as error:
            raise CommandError(f"the benchmarks are not installed here: {error}") from None
