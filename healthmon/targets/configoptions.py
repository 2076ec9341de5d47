"""Options with secrets, as entries of a configuration file: in without being shown, never out.

Runs in commands; keeps nothing between calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from control.config.export import HIDDEN, Entry, EntryError
from healthmon.targets.configrows import Options
from sinks.secrets import SecretError, is_reference


def take_options(
    door: Options, row: Any, entry: Entry, existing: Any, where: str
) -> dict[str, tuple[Any, Any]]:
    """Set the options as the entry wants them; what differs, secrets hidden."""
    try:
        secret = door.secret_names(row)
        same_kind = existing is not None and existing.kind == row.kind
        stored = dict(existing.secrets) if same_kind else {}
        given = "options" in entry or not same_kind
        options = dict(entry.get("options", {}) if given else existing.options)
        _refuse_infinite(options, f"{where}: options")
        keep = list(entry.get("secrets", [] if given else stored))
        for name in keep:
            if not isinstance(name, str):
                raise EntryError(f"{where}: secrets must be a list of names")
            if name not in stored and name not in options:
                raise EntryError(
                    f"{where}: the secret {name} is not stored here and not in the file; "
                    f'give {name} = "env:NAME" among its options'
                )
        keep = [name for name in keep if name not in options]
        for name in set(options) & stored.keys():
            # The same value again is no change, though it would be encrypted to another text.
            if options[name] == _stored_value(door, existing, name):
                keep.append(name)
                del options[name]
        row.secrets = stored
        door.set(row, options, keep=keep)
    except (SecretError, ValueError) as error:
        if isinstance(error, EntryError):
            raise
        raise EntryError(f"{where}: {error}") from None
    before = _shown_options(existing, secret) if same_kind else {}
    after = _shown_options(row, secret)
    return {
        f"options.{name}": (
            _hidden(before.get(name)),
            _hidden(after.get(name)),
        )
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    }


def _refuse_infinite(value: Any, where: str) -> None:
    """No database has a place for NaN in JSON.  Raises EntryError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise EntryError(f"{where}: must be a finite number")
    if isinstance(value, Mapping):
        for name, one in value.items():
            _refuse_infinite(one, f"{where}.{name}")
    elif isinstance(value, list):
        for one in value:
            _refuse_infinite(one, where)


def export_options(door: Options, row: Any) -> Entry:
    """The fields `options` and `secrets`, where there is something to say."""
    secret = door.secret_names(row)
    options = {
        name: without_nulls(value)
        for name, value in row.options.items()
        # A secret among the options is a reference, or it is nobody's to see.
        if value is not None
        and (name not in secret or (isinstance(value, str) and is_reference(value)))
    }
    entry: Entry = {"secrets": sorted(row.secrets)} if row.secrets else {}
    return {**entry, "options": options} if options else entry


def _stored_value(door: Options, row: Any, name: str) -> Any:
    try:
        return door.plain(row).get(name)
    except SecretError:
        return None  # it cannot be read any more, so what the file gives is another


class _Hidden(str):
    """A stored secret in a comparison: equal when its token is, shown as hidden."""


def _shown_options(row: Any, secret: frozenset[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in row.options.items():
        if value is None:
            continue
        hidden = name in secret and not (isinstance(value, str) and is_reference(value))
        shown[name] = _Hidden(str(value)) if hidden else without_nulls(value)
    for name, token in row.secrets.items():
        shown[name] = _Hidden(token)
    return shown


def _hidden(value: Any) -> Any:
    return HIDDEN if isinstance(value, _Hidden) else value


def without_nulls(value: Any) -> Any:
    """The value without what TOML has no word for."""
    if isinstance(value, Mapping):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value if one is not None]
    return value
