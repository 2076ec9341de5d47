"""Rows as entries of a configuration file: a section exports and plans by its declaration.

What must change is written by `configwriter`, in bulk.  Runs in commands; keeps nothing between
calls.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError

from control.config.export import Change, Entry, EntryError, check_fields, take_names
from healthmon.targets.configoptions import export_options, take_options
from healthmon.targets.configrows import Names, Reference, Rows
from healthmon.targets.configwriter import Wanted, Writer


class RowSection:
    """A section of the file; see `control.config.export.Section`."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.name = rows.section
        self.order = rows.order
        self._fields: dict[str, type] = {
            rows.key: str,
            **{name: column.kind for name, column in rows.columns.items()},
            **dict.fromkeys(rows.one, str),
            **dict.fromkeys(rows.many, list),
        }
        if rows.options is not None:
            self._fields |= {"secrets": list, "options": dict}

    def export(self) -> list[Entry]:
        found, names = self._read()
        return [self._entry(key, row, names[row.pk]) for key, row in sorted(found.items())]

    def plan(self, entries: list[Entry], *, prune: bool) -> list[Change]:
        return self.plan_within(entries, prune=prune, document={})

    def plan_within(
        self, entries: list[Entry], *, prune: bool, document: Mapping[str, list[Entry]]
    ) -> list[Change]:
        """What must change, where rows of other sections of the same file may be named."""
        found, names = self._read()
        named = take_names(entries, section=self.name, key=self._rows.key)
        gone = [key for key in found if key not in named] if prune else []
        known = self._known(document, prune)
        writer = Writer(
            model=self._rows.model, one=self._rows.one, many=self._rows.many, noun=self._rows.noun
        )
        changes = []
        links = {key: dict(names[row.pk]) for key, row in found.items() if key not in gone}
        for key, entry in named.items():
            row = found.get(key)
            change = self._change(key, entry, row, names[row.pk] if row else {}, known, writer)
            if change is not None:
                changes.append(change)
            links[key] = {
                name: entry.get(name, links.get(key, {}).get(name, [])) for name in self._rows.many
            }
        if self._rows.check is not None:
            self._rows.check(links)
        for key in gone:
            writer.remove(key, found[key].pk)
            changes.append(
                Change(section=self.name, name=key, action="remove", together=writer.write)
            )
        return changes

    def _read(self) -> tuple[dict[str, Any], dict[Any, Names]]:
        """The rows by key, and by primary key the names that each refers to."""
        rows: dict[str, Any] = {}
        for row in self._rows.model._default_manager.order_by("pk"):
            rows[_free_key(getattr(row, self._rows.key), rows)] = row
        names: dict[Any, Names] = {row.pk: {} for row in rows.values()}
        for field_name, reference in self._rows.one.items():
            column = f"{field_name}__{reference.by}"
            pairs = self._rows.model._default_manager.values_list("pk", column).order_by()
            for pk, name in pairs:
                if pk in names:
                    names[pk][field_name] = name or ""
        for field_name, reference in self._rows.many.items():
            lists: dict[Any, list[str]] = defaultdict(list)
            through = getattr(self._rows.model, field_name).through
            attribute = self._rows.model._meta.get_field(field_name)
            source = attribute.m2m_field_name()  # type: ignore[union-attr]
            target = attribute.m2m_reverse_field_name()  # type: ignore[union-attr]
            for pk, name in through.objects.values_list(
                f"{source}_id", f"{target}__{reference.by}"
            ):
                lists[pk].append(name)
            for pk, of in names.items():
                of[field_name] = sorted(lists.get(pk, ()))
        return rows, names

    def _known(self, document: Mapping[str, list[Entry]], prune: bool) -> dict[str, set[str]]:
        """By field, the names that an entry may refer to; of a field that is not here, any."""
        known: dict[str, set[str]] = {}
        for field_name, reference in {**self._rows.one, **self._rows.many}.items():
            listed = document.get(reference.section) if reference.section else None
            if reference.implied and not (prune and listed is not None):
                continue
            names = {str(entry.get(reference.by, "")) for entry in listed or ()}
            if not (prune and listed is not None):
                manager = reference.model._default_manager
                names |= set(manager.values_list(reference.by, flat=True).order_by())
            known[field_name] = names
        return known

    def _entry(self, key: str, row: Any, names: Names) -> Entry:
        entry: Entry = {self._rows.key: key}
        for name, column in self._rows.columns.items():
            shown = column.shown(getattr(row, name))
            if shown is not None:
                entry[name] = shown
        for name in (*self._rows.one, *self._rows.many):
            value = names.get(name, "")
            entry[name] = value if isinstance(value, str) else list(value)
        if self._rows.options is not None:
            entry |= export_options(self._rows.options, row)
        return entry

    def _change(
        self,
        key: str,
        entry: Entry,
        existing: Any,
        names: Names,
        known: Mapping[str, set[str]],
        writer: Writer,
    ) -> Change | None:
        rows = self._rows
        where = f'{rows.noun} "{key}"'
        unset = {
            name
            for name, column in rows.columns.items()
            if name in entry and column.unsets(entry[name])
        }
        given = {name: value for name, value in entry.items() if name not in unset}
        check_fields(given, self._fields, where=where)
        row = copy.copy(existing) if existing is not None else rows.model(**{rows.key: key})
        fields: dict[str, tuple[Any, Any]] = {}
        for name, column in rows.columns.items():
            if name not in entry:
                continue
            now = getattr(row, name)
            wanted = column.held(entry[name], where=f"{where}: {name}")
            if now != wanted:
                setattr(row, name, wanted)
                # Of a new row, what was written down.
                before = None if existing is None else column.shown(now)
                fields[name] = (before, column.shown(wanted))
        columns = set(fields)
        if rows.options is not None and (
            existing is None or "options" in entry or "secrets" in entry or "kind" in fields
        ):
            more = take_options(rows.options, row, entry, existing, where)
            fields |= more
            columns |= {"options", "secrets"} if more else set()
        links: dict[str, Any] = {}
        for name, reference in {**rows.one, **rows.many}.items():
            if name not in entry:
                continue
            wanted = self._names(name, reference, entry[name], known, where)
            now = names.get(name, "" if name in rows.one else [])
            if wanted != now:
                links[name] = wanted
                fields[name] = (None if existing is None else now, wanted)
        if existing is not None and not fields:
            return None
        self._validate(row, where, new=existing is None, columns=columns)
        writer.want(key, Wanted(row=row, new=existing is None, columns=columns, links=links))
        return Change(
            section=self.name,
            name=key,
            action="add" if existing is None else "change",
            fields=fields,
            together=writer.write,
        )

    def _names(
        self,
        name: str,
        reference: Reference,
        value: Any,
        known: Mapping[str, set[str]],
        where: str,
    ) -> Any:
        wanted: list[str] = [value] if isinstance(value, str) else list(value)
        for one in wanted:
            if not isinstance(one, str):
                raise EntryError(f"{where}: {name} must be a list of texts")
            if name in self._rows.one and not one:
                continue
            if name in known and one not in known[name]:
                raise EntryError(
                    f"{where}: {name} names {one!r}, which "
                    + (
                        f"is neither in the file's [[{reference.section}]] nor here"
                        if reference.section
                        else "does not exist here"
                    )
                )
            if reference.implied:
                self._check_implied(reference, one, f"{where}: {name}")
        return wanted[0] if isinstance(value, str) else sorted(set(wanted))

    @staticmethod
    def _check_implied(reference: Reference, name: str, where: str) -> None:
        limit = getattr(reference.model._meta.get_field(reference.by), "max_length", None) or 63
        if not name.strip() or len(name) > limit or "\0" in name:
            raise EntryError(f"{where}: a name has 1 to {limit} characters")

    def _validate(self, row: Any, where: str, *, new: bool, columns: Iterable[str]) -> None:
        checked = {self._rows.key, *(self._rows.columns if new else columns)} - {"options"}
        every = {field.name for field in self._rows.model._meta.concrete_fields}
        try:
            row.clean_fields(exclude=every - checked)
        except ValidationError as error:
            raise EntryError(f"{where}: {_readable(error)}") from None
        problems = self._rows.problems(row)
        if problems:
            raise EntryError(f"{where}: " + "; ".join(f"{k}: {v}" for k, v in problems.items()))


def _free_key(name: str, taken: Mapping[str, Any]) -> str:
    """The name, told apart from an older row of the same name where names may repeat."""
    key, number = name, 2
    while key in taken:
        key, number = f"{name} ({number})", number + 1
    return key


def _readable(error: ValidationError) -> str:
    if hasattr(error, "error_dict"):
        return "; ".join(f"{k}: {' '.join(v)}" for k, v in error.message_dict.items())
    return " ".join(error.messages)
