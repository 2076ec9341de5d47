"""Sinks as configuration: rows by name; secrets leave only as references to the environment.

A secret that is stored here is named in `secrets` and kept when the file is applied to the same
installation; another one asks for `env:NAME` in its place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from django.core.exceptions import ValidationError

from control.config.export import (
    Change,
    Entry,
    EntryError,
    check_fields,
    take_names,
)
from sinks import changes
from sinks.configuration import build_sink, pipeline_settings, plain_options, set_options
from sinks.differences import COLUMNS, PLAIN, difference, secrets_of, shown
from sinks.models import SinkConfig
from sinks.registry import BackendError
from sinks.secrets import SecretError, is_reference

_FIELDS: dict[str, type] = {
    "name": str,
    "backend": str,
    "required": bool,
    "enabled": bool,
    "paused": bool,
    "types": list,
    "tenants": list,
    "min_level": str,
    "secrets": list,
    "options": dict,
    "pipeline": dict,
}


class SinkSection:
    """By name: another name is another sink."""

    name = "sinks"
    order = 50

    def export(self) -> list[Entry]:
        return [_entry(row) for row in SinkConfig.objects.order_by("name")]

    def plan(self, entries: list[Entry], *, prune: bool) -> list[Change]:
        rows = {row.name: row for row in SinkConfig.objects.all()}
        named = take_names(entries, section=self.name, key="name")
        planned = [
            change
            for name, entry in named.items()
            if (change := _change(name, entry, rows.get(name))) is not None
        ]
        if prune:
            planned += [
                Change(section=self.name, name=name, action="remove", apply=_deleter(row))
                for name, row in rows.items()
                if name not in named
            ]
        return planned


def _entry(row: SinkConfig) -> Entry:
    secret = secrets_of(row)
    options = {
        name: value
        for name, value in row.options.items()
        # A secret among the options is a reference, or it is nobody's to see.
        if name not in secret or (isinstance(value, str) and is_reference(value))
    }
    entry: Entry = {
        "name": row.name,
        "backend": row.backend,
        "required": row.required,
        "enabled": row.enabled,
        "paused": row.paused,
        "types": list(row.route_types),
        "tenants": list(row.route_tenants),
        "min_level": row.min_level,
    }
    if row.secrets:
        entry["secrets"] = sorted(row.secrets)
    if options:
        entry["options"] = options
    if row.pipeline:
        entry["pipeline"] = dict(row.pipeline)
    return entry


def _change(name: str, entry: Entry, existing: SinkConfig | None) -> Change | None:
    where = f'sink "{name}"'
    check_fields(entry, _FIELDS, where=where)
    row = _copy(existing) if existing is not None else SinkConfig(name=name)
    row.backend = entry.get("backend", row.backend)
    if not row.backend:
        raise EntryError(f"{where}: backend is missing")
    for field in ("types", "tenants", "secrets"):
        if not all(isinstance(value, str) for value in entry.get(field, [])):
            raise EntryError(f"{where}: {field} must be a list of texts")
    before = shown(existing) if existing is not None else {}
    try:
        for field in PLAIN:
            if field in entry:
                setattr(row, COLUMNS.get(field, field), entry[field])
        if existing is None or "options" in entry or row.backend != existing.backend:
            _take_options(row, entry, existing, where)
        row.full_clean(validate_unique=False)
        sink = build_sink(row)
        pipeline_settings(row, sink)
    except (BackendError, SecretError) as error:
        raise EntryError(str(error)) from None
    except ValidationError as error:
        raise EntryError(f"{where}: {' '.join(error.messages)}") from None
    fields = difference(before, shown(row))
    if existing is not None and not fields:
        return None
    return Change(
        section="sinks",
        name=name,
        action="change" if existing is not None else "add",
        fields=fields,
        apply=_saver(existing, row),
    )


def _take_options(row: SinkConfig, entry: Entry, existing: SinkConfig | None, where: str) -> None:
    options = dict(entry.get("options", {}))
    stored = existing.secrets if existing is not None and existing.backend == row.backend else {}
    keep = [str(name) for name in entry.get("secrets", []) if name not in options]
    for name in keep:
        if name not in stored:
            raise EntryError(
                f"{where}: the secret {name} is not stored here and not in the file; "
                f'give {name} = "env:NAME" among its options'
            )
    for name in set(options) & set(stored):
        # The same value again is no change, though it would be encrypted to another text.
        if existing is not None and plain_options(existing).get(name) == options[name]:
            keep.append(name)
            del options[name]
    row.secrets = dict(stored)
    set_options(row, options, keep=keep)


def _copy(row: SinkConfig) -> SinkConfig:
    return copy.deepcopy(row)


def _saver(existing: SinkConfig | None, row: SinkConfig) -> Callable[[], None]:
    def save() -> None:
        row.save()
        changes.record(existing, row, who=changes.command_user())

    return save


def _deleter(row: SinkConfig) -> Callable[[], None]:
    def delete() -> None:
        changes.record(row, None, who=changes.command_user())
        row.delete()

    return delete
