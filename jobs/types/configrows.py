"""How rows of one kind are exported, compared with a file's entries, and planned to be written.

Each kind (`jobs.types.configsection`) says what its columns are and what else belongs to a row.
Runs in commands; keeps nothing between calls.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model

from control.config.export import Change, Entry, EntryError, check_fields, take_names
from jobs.types.configfields import Column, difference

Document = Mapping[str, list[Entry]]
Row = TypeVar("Row", bound=Model)


class RowSection(Generic[Row]):
    """A section of the file, by name; see `control.config.export.Section`."""

    name: str
    order: int
    noun: str
    columns: ClassVar[tuple[Column, ...]]
    # Fields of an entry that are no columns of the row itself.
    more: ClassVar[dict[str, type]] = {}
    # Columns that this section sets by other means than `columns`.
    unchecked: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: type[Row]) -> None:
        self._model = model

    # --- what a kind says ------------------------------------------------------------------

    def shown(self, row: Row) -> Entry:
        """What belongs to the row beside its columns, as in an entry."""
        return {}

    def told(self, row: Row) -> dict[str, Any]:
        """What of it is compared and shown as a difference, by field."""
        return self.shown(row)

    def take(self, row: Row, entry: Entry, document: Document, where: str) -> None:
        """Take from the entry what is no column.  Raises EntryError."""

    def check(self, row: Row, document: Document, where: str) -> None:
        """Raises EntryError for what is wrong with the row as it shall be."""

    def save(self, row: Row, existing: Row | None, columns: list[str]) -> None:
        """Write it.  Raises EntryError where something it refers to has vanished."""
        raise NotImplementedError

    def check_removal(self, row: Row, document: Document) -> None:
        """Raises EntryError where it cannot go."""

    def remove(self, row: Row) -> None:
        row.delete()

    # --- the section -----------------------------------------------------------------------

    def rows(self) -> dict[str, Row]:
        found = self._model._default_manager.order_by("name")
        return {row.name: row for row in found}  # type: ignore[attr-defined]

    def export(self) -> list[Entry]:
        return [self.entry(row) for row in self.rows().values()]

    def entry(self, row: Row) -> Entry:
        entry: Entry = {"name": row.name}  # type: ignore[attr-defined]
        for column in self.columns:
            entry |= column.shown(getattr(row, column.name))
        return {**entry, **self.shown(row)}

    def plan(self, entries: list[Entry], *, prune: bool) -> list[Change]:
        return self.plan_within(entries, prune=prune, document={self.name: entries})

    def plan_within(self, entries: list[Entry], *, prune: bool, document: Document) -> list[Change]:
        rows = self.rows()
        named = take_names(entries, section=self.name, key="name")
        changes = []
        mistakes: list[str] = []
        for name, entry in named.items():
            try:
                change = self._change(name, entry, rows.get(name), document)
            except EntryError as error:
                mistakes += str(error).splitlines()
                continue
            if change is not None:
                changes.append(change)
        if mistakes:
            raise EntryError("\n".join(mistakes))
        for name, row in rows.items() if prune else ():
            if name not in named:
                self.check_removal(row, document)
                changes.append(
                    Change(
                        section=self.name,
                        name=name,
                        action="remove",
                        apply=self._remover(row),
                    )
                )
        return changes

    def _change(
        self, name: str, entry: Entry, existing: Row | None, document: Document
    ) -> Change | None:
        where = f'{self.noun} "{name}"'
        kinds: dict[str, type] = {"name": str, **self.more}
        for column in self.columns:
            kinds |= column.kinds()
        unset = {column.name for column in self.columns if column.unsets(entry)}
        row = copy.copy(existing) if existing is not None else self._model(name=name)
        check_fields({k: v for k, v in entry.items() if k not in unset}, kinds, where=where)
        mistakes = []
        for column in self.columns:
            try:
                if column.given(entry):
                    setattr(row, column.name, column.held(entry, where=where))
            except EntryError as error:
                mistakes.append(str(error))
        if mistakes:
            raise EntryError("\n".join(mistakes))
        self.take(row, entry, document, where)
        self._clean(row, where)
        self.check(row, document, where)
        blank = self._model() if existing is None else existing
        fields = difference(self._compared(blank), self._compared(row))
        if existing is not None and not fields:
            return None
        columns = [
            field.attname
            for field in self._model._meta.concrete_fields
            if not field.primary_key
            and existing is not None
            and getattr(row, field.attname) != getattr(existing, field.attname)
        ]
        return Change(
            section=self.name,
            name=name,
            action="add" if existing is None else "change",
            fields=fields,
            apply=self._saver(row, existing, columns),
        )

    def _compared(self, row: Row) -> dict[str, Any]:
        columns = {column.name: getattr(row, column.name) for column in self.columns}
        return {**columns, **self.told(row)}

    def _clean(self, row: Row, where: str) -> None:
        try:
            row.full_clean(
                exclude=self.unchecked, validate_unique=False, validate_constraints=False
            )
        except ValidationError as error:
            said = "; ".join(
                f"{field}: {' '.join(messages)}" for field, messages in error.message_dict.items()
            )
            raise EntryError(f"{where}: {said}") from None

    def _saver(self, row: Row, existing: Row | None, columns: list[str]) -> Callable[[], None]:
        return lambda: self.save(row, existing, columns)

    def _remover(self, row: Row) -> Callable[[], None]:
        return lambda: self.remove(row)


def refuse(problems: Mapping[str, str], where: str) -> None:
    """Raises EntryError where there are any."""
    if problems:
        said = "; ".join(f"{field}: {text}" if field else text for field, text in problems.items())
        raise EntryError(f"{where}: {said}")


def names_in(document: Document, section: str, key: str = "name") -> set[str]:
    """The names of a section's entries; what is wrong with those is said where they are planned."""
    return {
        entry[key]
        for entry in document.get(section, ())
        if isinstance(entry, Mapping) and isinstance(entry.get(key), str)
    }
