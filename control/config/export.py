"""Configuration rows as code: the sections that apps register, and all of them as TOML.

A section exports its rows as plain tables, keyed by name and without secrets, and plans what an
edited file would change.  Applying is `control.config.apply`.  Filled at `ready()`; the registry
has its own lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from control.config.export_toml import dumps
from control.ports.registry import Registry

Entry = dict[str, Any]
Action = Literal["add", "change", "remove"]
HIDDEN = "(hidden)"


class EntryError(ValueError):
    """An entry of the file cannot be applied; the text names it and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row that differs.  `fields` maps a field to (now, wanted), secrets hidden.

    Neighbours with the same `together` are made by one call of it with all of them, so that
    thousands of rows cost a few statements; their own `apply` is not called then.
    """

    section: str
    name: str
    action: Action
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    apply: Callable[[], None] = lambda: None
    together: Callable[[list[Change]], None] | None = None


@runtime_checkable
class Section(Protocol):
    """One kind of row.  Sections of lower `order` are applied first.

    One with a method `plan_within(entries, *, prune, document)` is asked that instead of `plan`:
    its rows refer to those of other sections, which may be in the same file.
    """

    name: str
    order: int

    def export(self) -> list[Entry]:
        """Every row, ordered by name; never a secret."""
        ...

    def plan(self, entries: list[Entry], *, prune: bool) -> list[Change]:
        """What must change; rows that are not named go only with `prune`.  Raises EntryError."""
        ...


_sections: Registry[Section] = Registry(what="configuration section")


def register_section(section: Section) -> None:
    """Make a section known; the same name again replaces it."""
    _sections.register(section.name, section)


def unregister_section(name: str) -> None:
    _sections.unregister(name)


def sections(names: Iterable[str] = ()) -> list[Section]:
    """The sections in the order of applying, all or those named.  Raises KeyError."""
    from control.config.export_tenants import TenantSection

    known: dict[str, Section] = {"tenants": TenantSection(), **dict(_sections.items())}
    chosen = [known[name] for name in names] if names else list(known.values())
    return sorted(chosen, key=lambda section: (section.order, section.name))


def export_document(names: Iterable[str] = ()) -> dict[str, list[Entry]]:
    """The rows of all sections, or of those named."""
    return {section.name: section.export() for section in sections(names)}


def export_toml(names: Iterable[str] = ()) -> str:
    """The same as TOML; what `config apply` reads."""
    document = {name: entries for name, entries in export_document(names).items() if entries}
    return dumps(document)


def take_names(entries: list[Entry], *, section: str, key: str) -> dict[str, Entry]:
    """The entries by their key.  Raises EntryError for one without, or for a repetition."""
    named: dict[str, Entry] = {}
    for number, entry in enumerate(entries, 1):
        name = entry.get(key)
        if not isinstance(name, str) or not name:
            raise EntryError(f"{section}, entry {number}: {key} is missing")
        if name in named:
            raise EntryError(f"{section}: {name!r} is there twice")
        named[name] = entry
    return named


def check_fields(entry: Entry, known: Mapping[str, type], *, where: str) -> None:
    """Every field is known and of its type.  Raises EntryError, a line for each that is not."""
    mistakes = []
    for name, value in entry.items():
        if name not in known:
            mistakes.append(f"{where}: unknown field {name!r}; known are {', '.join(known)}")
            continue
        wanted = known[name]
        allowed = (int, float) if wanted is float else wanted
        if not isinstance(value, allowed) or (wanted in (int, float) and isinstance(value, bool)):
            mistakes.append(f"{where}: {name} must be {_WORDS.get(wanted, wanted.__name__)}")
    if mistakes:
        raise EntryError("\n".join(mistakes))


_WORDS = {
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    int: "a whole number",
    float: "a number",
}
