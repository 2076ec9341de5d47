"""Writes planned rows in a few statements, be they thousands: rows, references, removals.

Used inside `control.config.apply`'s transaction, by its thread; names are resolved only then, as
other sections may just have made what they name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from control.config.apply import REFUSED, words_of
from control.config.export import Change, EntryError

if TYPE_CHECKING:
    from healthmon.targets.configrows import Reference

BATCH = 500
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Wanted:
    """A row as it shall be.  `links` are the names it shall refer to, by field."""

    row: Any
    new: bool
    columns: set[str]
    links: dict[str, Any] = field(default_factory=dict)


class Writer:
    """Holds what one section's plan wants until it is written."""

    def __init__(
        self,
        *,
        model: type[Model],
        one: Mapping[str, Reference],
        many: Mapping[str, Reference],
        noun: str,
    ) -> None:
        self._model = model
        self._one = one
        self._many = many
        self._noun = noun
        self._wanted: dict[str, Wanted] = {}
        self._gone: dict[str, Any] = {}

    def want(self, key: str, wanted: Wanted) -> None:
        self._wanted[key] = wanted

    def remove(self, key: str, pk: Any) -> None:
        self._gone[key] = pk

    def write(self, changes: list[Change]) -> None:
        """Make the changes.  Raises EntryError for a name that has vanished since planning."""
        gone = [self._gone[change.name] for change in changes if change.action == "remove"]
        wanted = {
            change.name: self._wanted[change.name]
            for change in changes
            if change.action != "remove"
        }
        for some in in_batches(gone):
            self._model._default_manager.filter(pk__in=some).delete()
        for name, reference in self._one.items():
            self._point(name, reference, wanted)
        self._store(wanted)
        for name, reference in self._many.items():
            self._link(name, reference, wanted)

    def _point(self, name: str, reference: Reference, wanted: Mapping[str, Wanted]) -> None:
        asked_for = {one.links[name] for one in wanted.values() if one.links.get(name)}
        _make_implied(reference, asked_for)
        ids = _ids(reference, asked_for)
        for key, one in wanted.items():
            if name not in one.links:
                continue
            asked = one.links[name]
            if asked and asked not in ids:
                raise self._vanished(key, name, asked)
            setattr(one.row, f"{name}_id", ids.get(asked))
            one.columns.add(name)

    def _store(self, wanted: Mapping[str, Wanted]) -> None:
        manager = self._model._default_manager
        self._insert(
            {key: one for key, one in wanted.items() if one.new},
            lambda rows: manager.bulk_create(rows),
        )
        changed = {key: one for key, one in wanted.items() if not one.new}
        if not changed:
            return
        columns = set().union(*(one.columns for one in changed.values()))
        if any(field.name == "updated_at" for field in self._model._meta.concrete_fields):
            now = timezone.now()
            for one in changed.values():
                one.row.updated_at = now
            columns.add("updated_at")
        if columns:
            # An upsert by primary key: a bulk UPDATE's CASE for each row and column is far slower.
            self._insert(
                changed,
                lambda rows: manager.bulk_create(
                    rows,
                    update_conflicts=True,
                    unique_fields=["id"],
                    update_fields=sorted(columns),
                ),
            )

    def _insert(self, wanted: Mapping[str, Wanted], insert: Callable[[list[Any]], object]) -> None:
        """Insert in batches; of a batch that is refused, one by one to learn whose fault it is."""
        for keys in in_batches(list(wanted)):
            try:
                with transaction.atomic():
                    insert([wanted[key].row for key in keys])
            except REFUSED as error:
                for key in keys if len(keys) > 1 else ():
                    try:
                        with transaction.atomic():
                            insert([wanted[key].row])
                    except REFUSED as its_own:
                        raise self._refused(key, its_own) from its_own
                raise self._refused(keys[0], error) from error

    def _refused(self, key: str, error: Exception) -> EntryError:
        return EntryError(f'{self._noun} "{key}": the database refuses it: {words_of(error)}')

    def _link(self, name: str, reference: Reference, wanted: Mapping[str, Wanted]) -> None:
        asked = {key: one for key, one in wanted.items() if name in one.links}
        if not asked:
            return
        names = sorted({other for one in asked.values() for other in one.links[name]})
        _make_implied(reference, names)
        ids = _ids(reference, names)
        through = getattr(self._model, name).through
        attribute: Any = self._model._meta.get_field(name)
        source = f"{attribute.m2m_field_name()}_id"
        other = f"{attribute.m2m_reverse_field_name()}_id"
        for some in in_batches([one.row.pk for one in asked.values() if not one.new]):
            through.objects.filter(**{f"{source}__in": some}).delete()
        rows = []
        for key, one in asked.items():
            for linked in one.links[name]:
                if linked not in ids:
                    raise self._vanished(key, name, linked)
                rows.append(through(**{source: one.row.pk, other: ids[linked]}))
        through.objects.bulk_create(rows, batch_size=BATCH)

    def _vanished(self, key: str, field_name: str, name: str) -> EntryError:
        return EntryError(
            f'{self._noun} "{key}": {field_name} names {name!r}, which has gone meanwhile'
        )


def _make_implied(reference: Reference, names: Iterable[str]) -> None:
    if reference.implied:
        reference.model._default_manager.bulk_create(
            [reference.model(**{reference.by: one}) for one in sorted(names)],
            ignore_conflicts=True,
            batch_size=BATCH,
        )


def _ids(reference: Reference, names: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for some in in_batches(sorted({name for name in names if name})):
        rows = reference.model._default_manager.filter(**{f"{reference.by}__in": some})
        found.update(rows.values_list(reference.by, "pk").order_by())
    return found


def in_batches(values: Sequence[T], size: int = BATCH) -> Iterator[list[T]]:
    """The values in lists of at most `size`: SQLite takes only so many parameters."""
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some
