"""Applying configuration: what a file would change, shown first, then done in one transaction.

Idempotent: a file that was exported or applied changes nothing.  Rows are found by name; those that
the file does not name stay, unless pruning is asked for.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from itertools import groupby
from typing import Any

from django.db import DataError, IntegrityError, transaction

from control.config.export import Change, EntryError, Section, sections

# What a database says of a row that it does not take.
REFUSED = (IntegrityError, DataError)
# So many names of what is added or changed are told in a summary; of what is removed, more.
SOME, MORE = 3, 20
# So many mistakes of a file are told at once.
MISTAKES = 50
MARKS = {"add": "+", "change": "~", "remove": "-"}


def parse(text: str) -> dict[str, list[dict[str, Any]]]:
    """The entries of a file by section.  Raises EntryError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EntryError(f"this is not TOML: {error}") from None
    known = [section.name for section in sections()]
    for name, entries in document.items():
        if name not in known or not isinstance(entries, list):
            raise EntryError(
                f"[{name}] is no list of rows; known are {', '.join(f'[[{n}]]' for n in known)} "
                "(settings belong in the file that COLLECTOR_CONFIG names)"
            )
        if not all(isinstance(entry, dict) for entry in entries):
            raise EntryError(f"{name}: every entry must be a table, [[{name}]]")
    return document


def plan(document: dict[str, list[dict[str, Any]]], *, prune: bool = False) -> list[Change]:
    """What must change, in the order of doing; nothing is done.

    Raises EntryError, which tells the mistakes of all sections, each in a line.
    """
    changes: list[Change] = []
    mistakes: list[str] = []
    for section in sections():
        if section.name in document:
            try:
                changes += _plan_of(section, document, prune)
            except EntryError as error:
                mistakes += str(error).splitlines() or [type(error).__name__]
    if mistakes:
        more = len(mistakes) - MISTAKES
        told = [*mistakes[:MISTAKES], *([f"and {more} more"] if more > 0 else [])]
        raise EntryError("\n".join(told))
    return changes


def _plan_of(
    section: Section, document: dict[str, list[dict[str, Any]]], prune: bool
) -> list[Change]:
    entries = document[section.name]
    within = getattr(section, "plan_within", None)
    if within is None:
        return section.plan(entries, prune=prune)
    changes: list[Change] = within(entries, prune=prune, document=document)
    return changes


def apply(changes: list[Change]) -> None:
    """Make the changes, all or none.

    Raises EntryError for what has vanished since planning, or is refused by the database.
    """
    with transaction.atomic(using="default"):
        for together, some in groupby(changes, key=lambda change: change.together):
            if together is not None:
                few = list(some)
                try:
                    together(few)
                except REFUSED as error:
                    raise EntryError(
                        f"{few[0].section}: the database refuses the changes: {words_of(error)}"
                    ) from error
                continue
            for change in some:
                try:
                    change.apply()
                except REFUSED as error:
                    raise EntryError(
                        f"{change.section} {change.name!r}: the database refuses it: "
                        f"{words_of(error)}"
                    ) from error


def words_of(error: Exception) -> str:
    """The database's first line: what follows may hold the whole row."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def describe(changes: list[Change]) -> str:
    """The changes as a person reads them."""
    lines = []
    for change in changes:
        lines.append(f"{MARKS[change.action]} {change.section}: {printable(change.name)}")
        for name, (now, wanted) in change.fields.items():
            if change.action == "add":
                lines.append(f"    {name} = {printable(wanted)}")
            elif change.action == "change":
                lines.append(f"    {name}: {printable(now)} -> {printable(wanted)}")
    return "\n".join(lines)


def summarise(changes: list[Change]) -> str:
    """The same where it would be too long to read: how many of which, and some of their names."""
    gathered: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        gathered.setdefault((change.section, change.action), []).append(change)
    lines = []
    for (section, action), of in gathered.items():
        told = MORE if action == "remove" else SOME
        names = ", ".join(printable(change.name) for change in of[:told])
        more = f", and {len(of) - told} more" if len(of) > told else ""
        lines.append(f"{MARKS[action]} {section}: {len(of)} to {action}: {names}{more}")
        if action == "change":
            fields = Counter(name for change in of for name in change.fields)
            lines += [f"    {printable(name)}: of {count}" for name, count in fields.most_common()]
    return "\n".join(lines)


def as_json(changes: list[Change]) -> list[dict[str, Any]]:
    """The changes for a program."""
    return [
        {
            "section": change.section,
            "name": change.name,
            "action": change.action,
            "fields": {
                name: {"now": now, "wanted": wanted}
                for name, (now, wanted) in change.fields.items()
            },
        }
        for change in changes
    ]


def printable(value: Any) -> str:
    """What a terminal can be shown without obeying it."""
    text = value if isinstance(value, str) else repr(value)
    if not text:
        return "''"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
