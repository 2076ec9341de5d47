"""The steps of a job type as entries of a configuration file: a list, taken as a whole.

Runs in commands; keeps nothing between calls.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from django.core.exceptions import ValidationError

from control.config.export import Entry, EntryError, check_fields
from jobs.types.configfields import Column
from jobs.types.models import CALL, DownstreamService, JobType, TypeStep

_OF_ALL = (
    Column(name="stage", kind=int),
    Column(name="kind"),
    Column(name="timeout_s", kind=float, optional=True),
)
_OF_CALLS = (
    Column(name="method"),
    Column(name="path"),
    Column(name="headers", kind=dict),
    Column(name="body", kind=object, json=True),
    Column(name="expected_status"),
)
_OF_HANDLERS = (Column(name="handler"),)
_COLUMNS = (*_OF_ALL, *_OF_CALLS, *_OF_HANDLERS)


def shown(step: TypeStep, downstream: str) -> Entry:
    """The entry of a step, with what its kind needs."""
    entry: Entry = {"name": step.name}
    calls = step.kind == CALL
    for column in (*_OF_ALL, *(_OF_CALLS if calls else _OF_HANDLERS)):
        entry |= column.shown(getattr(step, column.name))
    if calls and downstream:
        entry["downstream"] = downstream
    return entry


def taken(
    entries: Sequence[Any], *, known: Collection[str], where: str
) -> list[tuple[TypeStep, str]]:
    """The steps that entries want, and the downstream services they call.  Raises EntryError."""
    kinds: dict[str, type] = {"name": str, "downstream": str}
    for column in _COLUMNS:
        kinds |= column.kinds()
    found = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise EntryError(f"{where}, step {number}: must be a table, [[job_types.steps]]")
        name = entry.get("name")
        here = f'{where}, step "{name}"' if isinstance(name, str) else f"{where}, step {number}"
        unset = {column.name for column in _COLUMNS if column.unsets(entry)}
        check_fields({k: v for k, v in entry.items() if k not in unset}, kinds, where=here)
        step = TypeStep(name=name or "")
        for column in _COLUMNS:
            if column.given(entry):
                setattr(step, column.name, column.held(entry, where=here))
        downstream = entry.get("downstream", "")
        if downstream and downstream not in known:
            raise EntryError(
                f"{here}: downstream names {downstream!r}, which is neither in the file's "
                "[[downstreams]] nor here"
            )
        try:
            step.full_clean(
                exclude=("type", "downstream"), validate_unique=False, validate_constraints=False
            )
        except ValidationError as error:
            said = "; ".join(f"{f}: {' '.join(m)}" for f, m in error.message_dict.items())
            raise EntryError(f"{here}: {said}") from None
        found.append((step, downstream))
    return found


def save(row: JobType, steps: Sequence[tuple[TypeStep, str]]) -> None:
    """Make the type's steps these; those of the same name keep their rows."""
    here = {step.name: step for step in TypeStep.objects.filter(type=row)}
    wanted = {step.name for step, _ in steps}
    TypeStep.objects.filter(
        pk__in=[one.pk for one in here.values() if one.name not in wanted]
    ).delete()
    names = {downstream for _, downstream in steps if downstream}
    ids = dict(DownstreamService.objects.filter(name__in=names).values_list("name", "pk"))
    for step, downstream in steps:
        if downstream and downstream not in ids:
            raise EntryError(
                f'job type "{row.name}", step "{step.name}": the downstream service '
                f"{downstream!r} has gone meanwhile"
            )
        step.pk = here[step.name].pk if step.name in here else None
        step.type = row
        step.downstream_id = ids.get(downstream)
        step.save()
