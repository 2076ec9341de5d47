"""Pages by key: so many rows, and the address of the next page; nothing is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from control.admin.deadline import query_deadline
from control.web.api import QUERY_DEADLINE_S

PAGE, MAX_PAGE = 100, 500
MAX_ID = 2**63 - 1
# The parameters of `page`.
BEFORE, AFTER = ("limit", "before"), ("limit", "after")


def whole(request: Request, name: str, default: int, *, low: int, high: int) -> int:
    """A whole number of the query.  Raises ValidationError."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise exceptions.ValidationError({name: [f"a whole number from {low} to {high}"]})
    value = int(text)
    if not low <= value <= high:
        raise exceptions.ValidationError({name: [f"a whole number from {low} to {high}"]})
    return value


def flag(request: Request, name: str) -> bool | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise exceptions.ValidationError({name: ["true or false"]})
    return text == "true"


def choice(request: Request, name: str, known: Iterable[str]) -> str | None:
    text = request.query_params.get(name)
    if text is not None and text not in known:
        raise exceptions.ValidationError({name: [f"one of {', '.join(known)}"]})
    return text


def moment(request: Request, name: str, default: datetime) -> datetime:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        parsed = parse_datetime(text.replace(" ", "+"))
    except ValueError:
        parsed = None
    if parsed is None or not 1971 <= parsed.year <= 9000:
        raise exceptions.ValidationError({name: ["a time such as 2026-01-31T09:30:00Z"]})
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def page(
    request: Request,
    rows: QuerySet[Any],
    document: Callable[[Any], dict[str, Any]] | None = None,
    *,
    documents: Callable[[list[Any]], list[dict[str, Any]]] | None = None,
    newest_first: bool = True,
) -> Response:
    """One page, by primary key; `before` or `after` is where the last one ended.

    Rows are told of one by one by `document`, or together by `documents`; each has its `id`.
    """
    limit = whole(request, "limit", PAGE, low=1, high=MAX_PAGE)
    name, order, compare = (
        ("before", "-pk", "pk__lt") if newest_first else ("after", "pk", "pk__gt")
    )
    boundary = whole(request, name, -1, low=0, high=MAX_ID)
    rows = rows.order_by(order)
    if boundary >= 0:
        rows = rows.filter(**{compare: boundary})
    with query_deadline(rows.db, QUERY_DEADLINE_S):
        found = list(rows[: limit + 1])
        told = found[:limit]
        results: list[dict[str, Any]]
        results = documents(told) if documents is not None else list(map(document or dict, told))
        body: dict[str, Any] = {"results": results, "next": None}
    if len(found) > limit:
        query = request.query_params.copy()
        query[name] = str(results[-1]["id"])
        body["next"] = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
    return Response(body)
