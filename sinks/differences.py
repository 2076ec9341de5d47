"""A sink's settings as they may be shown, and how two states of them differ.

A stored secret takes part in a comparison, and is shown as hidden.  Pure functions.
"""

from __future__ import annotations

from typing import Any

from control.config.export import HIDDEN
from sinks.models import SinkConfig
from sinks.options import secret_names
from sinks.registry import BackendError, load_backend
from sinks.secrets import is_reference

# What a row calls them, where it is something else.
COLUMNS = {"types": "route_types", "tenants": "route_tenants"}
PLAIN = ("required", "enabled", "paused", "types", "tenants", "min_level", "pipeline")

Difference = dict[str, tuple[Any, Any]]


class _Hidden(str):
    """A stored secret in a comparison: equal when its token is, shown as hidden."""


def shown(row: SinkConfig) -> dict[str, Any]:
    """Every setting by the name that `config export` gives it; options one by one."""
    fields: dict[str, Any] = {"backend": row.backend}
    for field in PLAIN:
        fields[field] = getattr(row, COLUMNS.get(field, field))
    secret = secrets_of(row)
    for name, value in row.options.items():
        is_hidden = name in secret and not (isinstance(value, str) and is_reference(value))
        fields[f"options.{name}"] = _Hidden(value) if is_hidden else value
    for name, token in row.secrets.items():
        fields[f"options.{name}"] = _Hidden(token)
    return fields


def difference(before: dict[str, Any], after: dict[str, Any]) -> Difference:
    """What is not the same: by name (now, then), None for what is not there, secrets hidden."""
    return {
        field: (_plain(before.get(field)), _plain(after.get(field)))
        for field in {**before, **after}
        if before.get(field) != after.get(field)
    }


def secrets_of(row: SinkConfig) -> frozenset[str]:
    """The names of secret options; all of them when the backend cannot be asked."""
    try:
        return secret_names(load_backend(row.backend, row=row.name).cls.Options)
    except BackendError:
        return frozenset(row.options) | frozenset(row.secrets)


def _plain(value: Any) -> Any:
    return HIDDEN if isinstance(value, _Hidden) else value
