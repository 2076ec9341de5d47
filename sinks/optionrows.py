"""Options between a row and what an operator typed, for whatever keeps typed options in a row.

The row has `options`, plain JSON, and `secrets`, encrypted; a secret that is a reference to the
environment, `env:NAME`, stands among the options.  Pure functions but for the environment; any
thread may call them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

from sinks.secrets import decrypt, encrypt, is_reference, resolve


class OptionsRow(Protocol):
    """What a row has, on Django's model or anything else."""

    options: Any
    secrets: Any


def set_options(
    row: OptionsRow,
    values: dict[str, Any],
    *,
    secret: Collection[str],
    keep: Iterable[str] = (),
) -> None:
    """Put plain option values into the row, encrypting those named in `secret`.

    The stored secrets named in `keep` stay as they are.
    """
    kept = {name: row.secrets[name] for name in keep if name in row.secrets and name in secret}
    options: dict[str, Any] = {}
    for name, value in values.items():
        if name in secret and isinstance(value, str) and value and not is_reference(value):
            kept[name] = encrypt(value)
        else:
            options[name] = value
            kept.pop(name, None)
    row.options, row.secrets = options, kept


def plain_options(row: OptionsRow, *, secret: Collection[str]) -> dict[str, Any]:
    """The options with secrets decrypted and references resolved.  Raises SecretError."""
    values = dict(row.options)
    for name, token in row.secrets.items():
        values[name] = decrypt(token, option=name)
    for name in secret:
        if isinstance(values.get(name), str):
            values[name] = resolve(values[name], option=name)
    return values
