"""`manage.py config export | apply`: sinks, tenants and what other apps add, as a TOML file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from control.config.apply import apply, as_json, describe, parse, plan, printable, summarise
from control.config.export import Change, EntryError, export_document, export_toml, sections

MAX_BYTES = 10_000_000
# More changes than these are summarised.
SHOWN = 300


class Command(BaseCommand):
    help = (
        "Configuration as code. `config export` prints the rows as TOML, without secrets; "
        "`config apply FILE` shows what the file would change and, once confirmed, changes it. "
        "Rows are found by name; applying the same file again changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
        export = verbs.add_parser("export", help="print the rows as TOML")
        export.add_argument("file", nargs="?", default="-", help="where to write; - is the output")
        export.add_argument("--section", action="append", default=[], help="only this; repeatable")
        export.add_argument("--json", action="store_true", help="as JSON instead of TOML")
        apply_ = verbs.add_parser("apply", help="make the rows what a file says")
        apply_.add_argument("file", help="a file that `config export` wrote; - is the input")
        apply_.add_argument("--yes", action="store_true", help="do not ask")
        apply_.add_argument("--dry-run", action="store_true", help="show the changes, make none")
        apply_.add_argument(
            "--prune", action="store_true", help="remove rows that the file's sections do not name"
        )
        apply_.add_argument("--json", action="store_true", help="the changes as JSON")
        apply_.add_argument(
            "--verbose", action="store_true", help=f"each change, be they more than {SHOWN}"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verb"] == "export":
            self._export(options)
        else:
            self._apply(options)

    def _export(self, options: dict[str, Any]) -> None:
        known = [section.name for section in sections()]
        for name in options["section"]:
            if name not in known:
                raise CommandError(f"There is no section {name!r}; known are {', '.join(known)}.")
        if options["json"]:
            text = json.dumps(export_document(options["section"]), indent=2) + "\n"
        else:
            text = export_toml(options["section"])
        if options["file"] == "-":
            self.stdout.write(text, ending="")
            return
        try:
            Path(options["file"]).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be written: {error.strerror}") from error

    def _apply(self, options: dict[str, Any]) -> None:
        try:
            changes = plan(parse(_read(options["file"])), prune=options["prune"])
        except EntryError as error:
            raise CommandError(printable(str(error))) from error
        dry = options["dry_run"]
        if options["json"]:
            if changes and not dry and not options["yes"]:
                raise CommandError("With --json give --yes or --dry-run: there is nobody to ask.")
            if not dry:
                _apply_all(changes)
            answer = {"applied": not dry, "changes": as_json(changes)}
            self.stdout.write(json.dumps(answer, indent=2))
            return
        if not changes:
            self.stdout.write("Nothing to change.")
            return
        if len(changes) > SHOWN and not options["verbose"] and options.get("verbosity", 1) < 2:
            self.stdout.write(summarise(changes))
            self.stdout.write("With --verbose each of them is shown.")
        else:
            self.stdout.write(describe(changes))
        if dry:
            self.stdout.write(f"{len(changes)} changes; nothing was done.")
            return
        if not options["yes"] and not self._confirmed(options["file"]):
            raise CommandError("Nothing was changed.")
        _apply_all(changes)
        self.stdout.write(f"{len(changes)} changes made; processes follow within seconds.")

    def _confirmed(self, file: str) -> bool:
        if file == "-" or not sys.stdin.isatty():
            raise CommandError("There is nobody to ask: give --yes, or --dry-run to look only.")
        return input("Make these changes? [y/N] ").strip().lower() in ("y", "yes")


def _apply_all(changes: list[Change]) -> None:
    try:
        apply(changes)
    except EntryError as error:
        raise CommandError(f"Nothing was changed. {printable(str(error))}") from error


class _Parser(argparse.ArgumentParser):
    """Subparsers of a command are plain ones: Django's takes arguments that these do not."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.pop("called_from_command_line", None)
        super().__init__(**kwargs)


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else _bounded(Path(file))
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise CommandError(f"{file} is larger than {MAX_BYTES} bytes.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not UTF-8.") from None


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
