"""What is written for many targets at once: a few statements, whatever their number.

`updated_at` moves with every change, so that checkers see it; one line of the admin's log tells
who did what.  Runs in request threads, each function in one transaction of the control database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils import timezone

from healthmon.admin.targetform import tags_named
from healthmon.models import (
    Flip,
    Heartbeat,
    Incident,
    IncidentEntry,
    MaintenanceWindow,
    Ping,
    Tag,
    Target,
    TargetState,
)

CHUNK = 500
NAMES_LOGGED = 5


def chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), CHUNK):
        yield list(ids[start : start + CHUNK])


@transaction.atomic
def update(ids: Sequence[int], **fields: Any) -> int:
    now = timezone.now()
    return sum(
        Target.objects.filter(pk__in=some).update(**fields, updated_at=now) for some in chunks(ids)
    )


@transaction.atomic
def add_tags(ids: Sequence[int], names: list[str]) -> None:
    through: Any = Target.tags.through
    tags = tags_named(names)
    for some in chunks(ids):
        rows = [through(target_id=pk, tag_id=tag.pk) for pk in some for tag in tags]
        through.objects.bulk_create(rows, ignore_conflicts=True)


@transaction.atomic
def remove_tags(ids: Sequence[int], names: list[str]) -> None:
    through: Any = Target.tags.through
    tags = list(Tag.objects.filter(name__in=names).values_list("pk", flat=True))
    for some in chunks(ids):
        through.objects.filter(target_id__in=some, tag_id__in=tags).delete()


@transaction.atomic
def clone(ids: Sequence[int]) -> list[Target]:
    """Paused copies, with tags, parents and secrets, but with no ping address."""
    originals = list(Target.objects.filter(pk__in=list(ids)).order_by("name"))
    copies = []
    names = _free_names([target.name for target in originals])
    for target, name in zip(originals, names, strict=True):
        fields = {
            field.attname: getattr(target, field.attname)
            for field in Target._meta.concrete_fields
            if not field.primary_key
        }
        fields |= {
            "name": name, "paused": True, "ping_digest": None, "ping_hint": "",
            "run_requested_at": None, "updated_at": timezone.now(),
        }  # fmt: skip
        copies.append(Target(**fields))
    made = Target.objects.bulk_create(copies)
    new_ids = {old.pk: new.pk for old, new in zip(originals, made, strict=True)}
    _copy_links(Target.tags.through, "target_id", "tag_id", new_ids)
    _copy_links(Target.parents.through, "from_target_id", "to_target_id", new_ids)
    return made


def _copy_links(through: Any, own: str, other: str, new_ids: dict[int, int]) -> None:
    rows = through.objects.filter(**{f"{own}__in": list(new_ids)}).values_list(own, other)
    through.objects.bulk_create(
        [through(**{own: new_ids[old], other: there}) for old, there in rows]
    )


def _free_names(names: list[str]) -> list[str]:
    """`name (copy)`, or with the first number that is free."""
    longest = Target._meta.get_field("name").max_length or 200
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = f"{name[: longest - 14]} (copy"
        if not taken & {stem}:
            taken |= {stem, *Target.objects.filter(name__startswith=stem).values_list(
                "name", flat=True)}  # fmt: skip
        number, wanted = 1, f"{stem})"
        while wanted in taken:
            number += 1
            wanted = f"{stem} {number})"
        taken.add(wanted)
        found.append(wanted)
    return found


@transaction.atomic
def add_maintenance(
    ids: Sequence[int], *, title: str, starts_at: datetime, minutes: int
) -> MaintenanceWindow:
    window = MaintenanceWindow.objects.create(
        title=title,
        starts_at=starts_at,
        duration_s=int(timedelta(minutes=minutes).total_seconds()),
    )
    through: Any = MaintenanceWindow.targets.through
    for some in chunks(ids):
        through.objects.bulk_create(
            [through(maintenancewindow_id=window.pk, target_id=pk) for pk in some]
        )
    update(ids)
    return window


def delete(ids: Sequence[int]) -> int:
    """Targets with their flips, incidents and pings, some at a time, so that others may write."""
    gone = 0
    for some in chunks(ids):
        with transaction.atomic():
            Target.objects.filter(pk__in=some).hold()
            # First what hangs on them, each by one statement, or all of it would be read.
            IncidentEntry.objects.filter(incident__target_id__in=some).delete()
            for model in (Incident, Flip, Ping, Heartbeat, TargetState):
                model.objects.filter(target_id__in=some).delete()
            _, by_model = Target.objects.filter(pk__in=some).delete()
            gone += by_model.get(Target._meta.label, 0)
    return gone


def log(
    user: Any, targets: Iterable[str], count: int, words: str, *, deleted: bool = False
) -> None:
    """One line of the admin's log for all of them."""
    names = [name for _, name in zip(range(NAMES_LOGGED), targets, strict=False)]
    listed = ", ".join(names) + (f" and {count - len(names)} more" if count > len(names) else "")
    LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(Target),
        object_repr=f"{count} target{'' if count == 1 else 's'}: {listed}"[:200],
        action_flag=DELETION if deleted else CHANGE,
        change_message=words,
    )
