"""Sinks as configuration: rows by name; secrets leave only as references to the environment.

A secret that is stored here is named in `secrets` and kept when the file is applied to the same
installation; another one asks for `env:NAME` in its place.
"""

from __future__ import annotations

import copy
from typing import Any

from django.core.exceptions import ValidationError

from control.config.export import (
    HIDDEN,
    Change,
    Entry,
    EntryError,
    check_fields,
    take_names,
)
from sinks.configuration import build_sink, pipeline_settings, plain_options, set_options
from sinks.models import SinkConfig
from sinks.options import secret_names
from sinks.registry import BackendError, load_backend
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
# What a row calls them, where it is something else.
_COLUMNS = {"types": "route_types", "tenants": "route_tenants"}
_PLAIN = ("required", "enabled", "paused", "types", "tenants", "min_level", "pipeline")


class SinkSection:
    """By name: another name is another sink."""

    name = "sinks"
    order = 50

    def export(self) -> list[Entry]:
        return [_entry(row) for row in SinkConfig.objects.order_by("name")]

    def plan(self, entries: list[Entry], *, prune: bool) -> list[Change]:
        rows = {row.name: row for row in SinkConfig.objects.all()}
        named = take_names(entries, section=self.name, key="name")
        changes = [
            change
            for name, entry in named.items()
            if (change := _change(name, entry, rows.get(name))) is not None
        ]
        if prune:
            changes += [
                Change(section=self.name, name=name, action="remove", apply=_deleter(row))
                for name, row in rows.items()
                if name not in named
            ]
        return changes


def _entry(row: SinkConfig) -> Entry:
    secret = _secrets_of(row)
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
    before = _shown(existing) if existing is not None else {}
    try:
        for field in _PLAIN:
            if field in entry:
                setattr(row, _COLUMNS.get(field, field), entry[field])
        if existing is None or "options" in entry or row.backend != existing.backend:
            _take_options(row, entry, existing, where)
        row.full_clean(validate_unique=False)
        sink = build_sink(row)
        pipeline_settings(row, sink)
    except (BackendError, SecretError) as error:
        raise EntryError(str(error)) from None
    except ValidationError as error:
        raise EntryError(f"{where}: {' '.join(error.messages)}") from None
    after = _shown(row)
    fields = {
        field: (_hidden(before.get(field)), _hidden(after.get(field)))
        for field in {**before, **after}
        if before.get(field) != after.get(field)
    }
    if existing is not None and not fields:
        return None
    return Change(
        section="sinks",
        name=name,
        action="change" if existing is not None else "add",
        fields=fields,
        apply=row.save,
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


class _Hidden(str):
    """A stored secret in a comparison: equal when its token is, shown as hidden."""


def _shown(row: SinkConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {"backend": row.backend}
    for field in _PLAIN:
        fields[field] = getattr(row, _COLUMNS.get(field, field))
    secret = _secrets_of(row)
    for name, value in row.options.items():
        is_hidden = name in secret and not (isinstance(value, str) and is_reference(value))
        fields[f"options.{name}"] = _Hidden(value) if is_hidden else value
    for name, token in row.secrets.items():
        fields[f"options.{name}"] = _Hidden(token)
    return fields


def _hidden(value: Any) -> Any:
    return HIDDEN if isinstance(value, _Hidden) else value


def _secrets_of(row: SinkConfig) -> frozenset[str]:
    """The names of secret options; all of them when the backend cannot be asked."""
    try:
        return secret_names(load_backend(row.backend, row=row.name).cls.Options)
    except BackendError:
        return frozenset(row.options) | frozenset(row.secrets)


def _copy(row: SinkConfig) -> SinkConfig:
    return copy.deepcopy(row)


def _deleter(row: SinkConfig) -> Any:
    def delete() -> None:
        row.delete()

    return delete
