"""`GET /jobs`: a page of jobs by their ids, newest first; nothing is counted.

Each filter but the service's time window has an index that ends in the id, so that a page is read
from its place.  Of several states each is read by itself and the pages are merged: an index cannot
give them in one order.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from control.admin.deadline import query_deadline
from control.auth.keys import Principal
from control.auth.models import DEFAULT_TENANT
from control.web.api import QUERY_DEADLINE_S
from control.web.paging import MAX_PAGE, PAGE, moment, whole
from jobs.api.documents import listed
from jobs.ids import first_id_at
from jobs.states import STATES
from jobs.store.models import Job
from jobs.types.models import JobType

PARAMETERS = (
    "status", "type", "correlation_id", "service", "tenant", "since", "until",
    "before", "after", "limit",
)  # fmt: skip
# What a list does not show may be large.
_UNSHOWN = ("payload", "result")


def visible(principal: Principal) -> QuerySet[Job]:
    """The jobs that the caller may look at."""
    rows = Job.objects.all()
    return rows if principal.any_tenant else of_tenant(rows, principal.tenant)


def of_tenant(rows: QuerySet[Job], tenant: str) -> QuerySet[Job]:
    if tenant != DEFAULT_TENANT:
        # Said again as the index has it, which the database cannot tell from the value.
        rows = rows.exclude(tenant=DEFAULT_TENANT)
    return rows.filter(tenant=tenant)


def page(request: Request, principal: Principal) -> Response:
    limit = whole(request, "limit", PAGE, low=1, high=MAX_PAGE)
    before, after = _cursor(request, "before"), _cursor(request, "after")
    if before is not None and after is not None:
        raise exceptions.ValidationError({"after": ["before or after, not both"]})
    oldest_first = after is not None
    rows = _filtered(request, visible(principal))
    if before is not None:
        rows = rows.filter(pk__lt=before)
    if after is not None:
        rows = rows.filter(pk__gt=after)
    rows = rows.defer(*_UNSHOWN).order_by("pk" if oldest_first else "-pk")
    states = _states(request)
    with query_deadline(rows.db, QUERY_DEADLINE_S):
        if not states:
            found = list(rows[: limit + 1])
        else:
            pages = (list(rows.filter(state=state)[: limit + 1]) for state in states)
            merged = heapq.merge(*pages, key=lambda job: job.id, reverse=not oldest_first)
            found = [job for job, _ in zip(merged, range(limit + 1), strict=False)]
        names = type_names({job.type_id for job in found})
    told = found[:limit]
    body: dict[str, Any] = {
        "results": [listed(job, names[job.type_id]) for job in told],
        "next": None,
    }
    if len(found) > limit:
        query = request.query_params.copy()
        query["after" if oldest_first else "before"] = str(told[-1].id)
        body["next"] = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
    return Response(body)


def type_names(ids: set[int]) -> Mapping[int, str]:
    found = dict(JobType.objects.filter(pk__in=ids).values_list("pk", "name"))
    # A type that is gone has jobs that tell of it still.
    return {id: found.get(id, f"(type {id})") for id in ids}


def _filtered(request: Request, rows: QuerySet[Job]) -> QuerySet[Job]:
    asked = request.query_params
    if (name := asked.get("type")) is not None:
        ids = list(JobType.objects.filter(name=name[:63]).values_list("pk", flat=True))
        if not ids:
            raise exceptions.ValidationError({"type": ["There is no job type of that name."]})
        rows = rows.filter(type_id=ids[0])
    if correlation_id := asked.get("correlation_id"):
        rows = rows.exclude(correlation_id="").filter(correlation_id=correlation_id[:200])
    if service := asked.get("service"):
        rows = rows.exclude(service="").filter(service=service[:300])
    if tenant := asked.get("tenant"):
        rows = of_tenant(rows, tenant[:100])
    if asked.get("since"):
        rows = rows.filter(pk__gte=first_id_at(moment(request, "since", timezone.now())))
    if asked.get("until"):
        rows = rows.filter(pk__lt=first_id_at(moment(request, "until", timezone.now())))
    return rows


def _states(request: Request) -> list[str]:
    """Of the query, separated by commas; none: all."""
    sent = request.query_params.get("status")
    if sent is None:
        return []
    states = list(dict.fromkeys(sent.split(",")))
    if not set(states) <= set(STATES):
        raise exceptions.ValidationError(
            {"status": [f"one or more, separated by commas, of {', '.join(STATES)}"]}
        )
    return states


def _cursor(request: Request, name: str) -> UUID | None:
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    try:
        if len(text) > 36:
            raise ValueError
        return UUID(text)
    except ValueError:
        raise exceptions.ValidationError({name: ["a job's id"]}) from None
