"""What the operations of `/api/schema` on targets, results and incidents share."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from control.web.openapi import refusals
from healthmon.truth.models import STATUSES

REFUSALS = {
    400: "Some values are not valid; `errors` names them.",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key does not carry the scope: `read` to look, `targets` to change.",
    404: "There is no such row.",
    411: "A body without a Content-Length.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    503: "A database is away, or the question took too long; come back after `Retry-After` s.",
}
_LOOKING, BODY = (400, 401, 403, 503), (411, 413, 415)

BEFORE = OpenApiParameter(
    "before",
    {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    description="Rows with a lower id: `next` names the address of the next page.",
)
AFTER = OpenApiParameter(
    "after",
    {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    description="Rows with a higher id: `next` names the address of the next page.",
)
FILTERS = [
    OpenApiParameter("status", str, enum=sorted(STATUSES)),
    OpenApiParameter("tag", str, many=True, description="Targets with all of these tags."),
    OpenApiParameter("group", str),
    OpenApiParameter("kind", str),
    OpenApiParameter("search", str, description="A part of the name."),
    OpenApiParameter("paused", str, enum=["false", "true"]),
    OpenApiParameter("id", str, description="Ids separated by commas."),
]
TARGET_ID = OpenApiParameter("target", {"type": "integer", "minimum": 1, "maximum": 2**63 - 1})
OUTCOME = OpenApiParameter("outcome", str, enum=["degraded", "failed", "ok", "void"])


def responses(ok: int, body: Any, text: str, *more: int) -> dict[Any, Any]:
    answers: dict[Any, Any] = {ok: OpenApiResponse(body, description=text)}
    return {**answers, **refusals((*_LOOKING, *more), REFUSALS)}
