"""What the operations of `/api/schema` share: how to call, how refusals look, pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    inline_serializer,
)
from rest_framework import serializers

AUTH: Any = [{"ApiKeyBearer": []}, {"ApiKeyHeader": []}, {}]


def _problem(name: str, errors: Any) -> Any:
    return inline_serializer(
        name=name,
        fields={
            "type": serializers.CharField(),
            "title": serializers.CharField(),
            "status": serializers.IntegerField(),
            "detail": serializers.CharField(),
            "code": serializers.CharField(),
            "request_id": serializers.CharField(),
            "errors": errors,
        },
    )


PROBLEM = _problem(
    "ProblemDocument",
    serializers.DictField(required=False, help_text="By field, what is wrong."),
)
POINTED_PROBLEM = _problem(
    "PointedProblemDocument",
    inline_serializer(
        name="PointedError",
        fields={
            "pointer": serializers.CharField(help_text="Where, as a JSON pointer (RFC 6901)."),
            "code": serializers.CharField(),
            "detail": serializers.CharField(),
        },
        many=True,
        required=False,
    ),
)
LIMIT = OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100})


def refusals(
    statuses: tuple[int, ...], texts: Mapping[int, str], body: Any = PROBLEM
) -> dict[Any, Any]:
    return {
        (status, "application/problem+json"): OpenApiResponse(body, description=texts[status])
        for status in statuses
    }


def page_of(name: str, of: Any) -> Any:
    return inline_serializer(
        name=name,
        fields={"results": of, "next": serializers.URLField(allow_null=True)},
    )


def operation(name: str, summary: str, tag: str, **more: Any) -> Any:
    return extend_schema(operation_id=name, summary=summary, tags=[tag], auth=AUTH, **more)
