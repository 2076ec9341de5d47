"""What a kind of row declares of itself, to be entries of a configuration file.

A declaration (`Rows`) names the columns, the references to other rows by their names, and the
options with secrets.  `configplan` exports and plans by it, `configoptions` takes options in, and
`configwriter` writes in bulk.  Pure data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Model

from control.config.export import EntryError

# What a file holds for null, which TOML has no word for.
UNSET = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of its own.

    One that is `optional` may be null: it is left out of an export, and "none" in a file unsets
    it, as does `blank`, which stood for it before.  `read` and `show` turn what the file holds into
    what the row holds, and back.
    """

    kind: type
    optional: bool = False
    blank: Any = None
    read: Callable[[Any], Any] | None = None
    show: Callable[[Any], Any] | None = None

    def unsets(self, value: Any) -> bool:
        """Whether the file's value stands for null."""
        if not self.optional or isinstance(value, bool):
            return False
        return bool(value == UNSET or (self.blank is not None and value == self.blank))

    def shown(self, value: Any) -> Any:
        """As a file holds it; None for null."""
        return self.show(value) if self.show is not None and value is not None else value

    def held(self, value: Any, *, where: str) -> Any:
        """As a row holds it.  Raises EntryError."""
        if self.unsets(value):
            return None
        if self.read is not None:
            try:
                return self.read(value)
            except ValueError as error:
                raise EntryError(f"{where}: {error}") from None
        return finite(value, where=where) if self.kind is float else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Another row, or several, by name.

    Known are those of the database and those of the file's section `section`; with `implied` a
    name that nobody knows makes a row, unless pruning would remove it again.
    """

    model: type[Model]
    by: str = "name"
    section: str = ""
    implied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How rows of this kind keep options and secrets."""

    set: Callable[..., None]
    plain: Callable[[Any], dict[str, Any]]
    secret_names: Callable[[Any], frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One kind of row.  `key` names an entry; `problems` says by field what is wrong with a row."""

    section: str
    order: int
    noun: str
    model: type[Model]
    key: str
    columns: Mapping[str, Column]
    one: Mapping[str, Reference] = field(default_factory=dict)
    many: Mapping[str, Reference] = field(default_factory=dict)
    options: Options | None = None
    problems: Callable[[Any], Mapping[str, str]] = lambda row: {}
    check: Callable[[dict[str, dict[str, Sequence[str]]]], None] | None = None


Names = dict[str, Sequence[str]]


def finite(value: Any, *, where: str) -> float:
    """The number; NaN passes every other check.  Raises EntryError."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise EntryError(f"{where}: must be a finite number")
    return number
