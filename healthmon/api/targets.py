"""`/api/targets`: list, make, look at, change and remove targets, one or many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework import exceptions, status
from rest_framework.request import Request
from rest_framework.response import Response

from control.web.paging import AFTER, choice, flag, page
from healthmon.api import schema
from healthmon.api.base import ApiView
from healthmon.api.targetdocument import as_rows, document, documents
from healthmon.api.targetform import BulkSerializer, TargetSerializer, tags_named
from healthmon.targets.models import Tag, Target
from healthmon.truth.machine import NEW
from healthmon.truth.models import STATUSES

FILTERS = ("status", "tag", "group", "kind", "search", "paused", "id")
MAX_IDS = 1_000


def filtered(request: Request) -> QuerySet[Target]:
    """The targets that the query's filters let through.  Raises ValidationError."""
    query = request.query_params
    rows = Target.objects.all()
    wanted = choice(request, "status", STATUSES)
    if wanted == NEW:
        rows = rows.filter(Q(state__isnull=True) | Q(state__status=NEW))
    elif wanted is not None:
        rows = rows.filter(state__status=wanted)
    for tag in query.getlist("tag")[:10]:
        rows = rows.filter(tags__name=tag)
    if "group" in query:
        rows = rows.filter(group__name=query["group"])
    if "kind" in query:
        rows = rows.filter(kind=query["kind"])
    if query.get("search"):
        rows = rows.filter(name__icontains=query["search"][:200])
    paused = flag(request, "paused")
    if paused is not None:
        rows = rows.filter(paused=paused)
    if "id" in query:
        rows = rows.filter(pk__in=_ids(query["id"]))
    return rows


def _ids(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",", MAX_IDS)]
    if len(parts) > MAX_IDS or not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
        raise exceptions.ValidationError({"id": [f"at most {MAX_IDS} ids, separated by commas"]})
    return [int(part) for part in parts]


@schema.targets
class TargetsView(ApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "GET": (*FILTERS, *AFTER),
        "PATCH": (*FILTERS, "all"),
    }

    def get(self, request: Request) -> Response:
        return page(request, as_rows(filtered(request)), documents=documents, newest_first=False)

    def post(self, request: Request) -> Response:
        form = TargetSerializer(data=_object(request))
        form.is_valid(raise_exception=True)
        row = form.save()
        return Response(
            document(row.pk),
            status=status.HTTP_201_CREATED,
            headers={"Location": f"/api/targets/{row.pk}"},
        )

    def patch(self, request: Request) -> Response:
        """Change every target that the filters let through."""
        form = BulkSerializer(data=_object(request))
        form.is_valid(raise_exception=True)
        if request.query_params.get("all") != "true" and not any(
            name in request.query_params for name in FILTERS
        ):
            raise exceptions.ValidationError(
                {"all": ["Name a filter, or say all=true: this changes every target."]}
            )
        return Response({"updated": _change_many(filtered(request), dict(form.validated_data))})


@schema.target
class TargetView(ApiView):
    def get(self, request: Request, pk: int) -> Response:
        return Response(document(pk))

    def patch(self, request: Request, pk: int) -> Response:
        form = TargetSerializer(_one(pk), data=_object(request), partial=True)
        form.is_valid(raise_exception=True)
        form.save()
        return Response(document(pk))

    def delete(self, request: Request, pk: int) -> Response:
        _one(pk).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


def _object(request: Request) -> dict[str, Any]:
    if not isinstance(request.data, dict):
        raise exceptions.ParseError("The body must be a JSON object.")
    return dict(request.data)


def _one(pk: int) -> Target:
    row: Target = get_object_or_404(Target, pk=pk)
    return row


def _change_many(rows: QuerySet[Target], values: dict[str, Any]) -> int:
    """All or none; how many targets were changed."""
    add, remove = values.pop("add_tags", []), values.pop("remove_tags", [])
    with transaction.atomic(using="default"):
        ids = list(rows.order_by("pk").values_list("pk", flat=True).distinct())
        added = tags_named(add)
        removed = list(Tag.objects.filter(name__in=remove))
        through = Target.tags.through
        for at in range(0, len(ids), MAX_IDS):
            part = ids[at : at + MAX_IDS]
            Target.objects.filter(pk__in=part).update(updated_at=timezone.now(), **values)
            through.objects.filter(target_id__in=part, tag__in=removed).delete()
            through.objects.bulk_create(
                [through(target_id=pk, tag_id=tag.pk) for pk in part for tag in added],
                ignore_conflicts=True,
                batch_size=500,
            )
            _refuse_unlikely(part, values)
    return len(ids)


def _refuse_unlikely(ids: list[int], values: dict[str, Any]) -> None:
    """A timeout of more than ten intervals would hardly be probed: nothing is changed then."""
    if not {"timeout_s", "interval_s"} & values.keys():
        return
    unlikely = (
        Target.objects.filter(pk__in=ids, timeout_s__gt=F("interval_s") * 10)
        .exclude(kind="heartbeat")
        .first()
    )
    if unlikely is not None:
        raise exceptions.ValidationError(
            {
                "timeout_s": [
                    f'target "{unlikely.name}" would have a timeout of more than ten intervals; '
                    "nothing was changed"
                ]
            }
        )
