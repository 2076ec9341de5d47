"""What columns of types, downstream services and schedules look like in a configuration file.

TOML has no word for null: a column that may be null is left out of an export, and "none" in a file
unsets it.  A JSON value that TOML cannot hold stands as text, under `<column>_json`.  Pure.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control.config.export import HIDDEN, Entry, EntryError
from control.config.export_toml import dumps

UNSET = "none"
JSON = "_json"
MAX_JSON_CHARS = 256_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`kind` is the type in the file; `object` is for any JSON value."""

    name: str
    kind: type = str
    optional: bool = False
    json: bool = False

    def kinds(self) -> dict[str, type]:
        """The fields of an entry that this column may take, for `check_fields`."""
        found = {self.name: self.kind}
        return {**found, self.name + JSON: str} if self.json else found

    def shown(self, value: Any) -> Entry:
        """The column in an entry; nothing for null."""
        if value is None:
            return {}
        if self.json and not tomlable(value):
            return {self.name + JSON: json.dumps(value, ensure_ascii=False, sort_keys=True)}
        return {self.name: value}

    def unsets(self, entry: Entry) -> bool:
        return self.optional and not self.json and entry.get(self.name) == UNSET

    def given(self, entry: Entry) -> bool:
        return self.name in entry or (self.json and self.name + JSON in entry)

    def held(self, entry: Entry, *, where: str) -> Any:
        """What a row holds for an entry that has given it.  Raises EntryError."""
        if self.unsets(entry):
            return None
        if self.json and self.name + JSON in entry:
            if self.name in entry:
                raise EntryError(f"{where}: give {self.name} or {self.name}{JSON}, not both")
            return parsed(entry[self.name + JSON], where=f"{where}: {self.name}{JSON}")
        value = entry[self.name]
        if self.kind in (dict, list, object):
            return plain(value, where=f"{where}: {self.name}")
        if self.kind is float:
            if abs(value) > 1e300 or not math.isfinite(value):
                raise EntryError(f"{where}: {self.name} must be a finite number")
            return float(value)
        if isinstance(value, str) and "\0" in value:
            raise EntryError(f"{where}: {self.name} has a NUL character in it")
        return value


def parsed(text: str, *, where: str) -> Any:
    """The JSON value of a text.  Raises EntryError."""
    if len(text) > MAX_JSON_CHARS:
        raise EntryError(f"{where}: is longer than {MAX_JSON_CHARS} characters")
    try:
        return plain(json.loads(text), where=where)
    except (ValueError, RecursionError) as error:
        if isinstance(error, EntryError):
            raise
        raise EntryError(f"{where}: is not JSON: {error}"[:300]) from None


def plain(value: Any, *, where: str) -> Any:
    """The value, if JSON and the database can hold it.  Raises EntryError."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise EntryError(
            f"{where}: holds what JSON cannot, such as a date or NaN; put it into quotes"
        ) from None
    if "\\u0000" in text or "\\ud8" in text.lower():
        # A lone surrogate shows as such; a pair is another story.
        _refuse_unkept(value, where)
    return value


def _refuse_unkept(value: Any, where: str) -> None:
    nodes = [value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str) and (
            "\0" in node or any(0xD800 <= ord(c) <= 0xDFFF for c in node)
        ):
            raise EntryError(f"{where}: has a character in it that no database keeps")
        if isinstance(node, Mapping):
            nodes += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            nodes += node


def tomlable(value: Any) -> bool:
    """Whether the value comes back from TOML as it went."""
    try:
        back = tomllib.loads(dumps({"value": value})).get("value")
        return same(back, value)
    except (TypeError, ValueError, RecursionError):
        return False


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and true are not, nor 1 and 1.0."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(
        other, sort_keys=True, default=str
    )


class Hidden(str):
    """A stored secret in a comparison: equal when its token is, shown as hidden."""


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By field what differs, secrets hidden."""
    return {
        name: (_hidden(before.get(name)), _hidden(after.get(name)))
        for name in {**before, **after}
        if not same(before.get(name), after.get(name))
    }


def _hidden(value: Any) -> Any:
    return HIDDEN if isinstance(value, Hidden) else value


def texts(entry: Entry, name: str, *, where: str) -> Sequence[str]:
    """A list of texts.  Raises EntryError."""
    found = entry.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise EntryError(f"{where}: {name} must be a list of texts")
    return found
