"""What `/api/schema` says of targets, results and incidents."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

from healthmon.api.incidentform import CommentSerializer
from healthmon.api.targetform import BulkSerializer, TargetSerializer
from healthmon.targets.models import SEVERITIES
from healthmon.truth.models import STATUSES

_AUTH: Any = [{"ApiKeyBearer": []}, {"ApiKeyHeader": []}, {}]
_PROBLEM = inline_serializer(
    name="ProblemDocument",
    fields={
        "type": serializers.CharField(),
        "title": serializers.CharField(),
        "status": serializers.IntegerField(),
        "detail": serializers.CharField(),
        "code": serializers.CharField(),
        "request_id": serializers.CharField(),
        "errors": serializers.DictField(required=False, help_text="By field, what is wrong."),
    },
)
_REFUSALS = {
    400: "Some values are not valid; `errors` names them.",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key does not carry the scope: `read` to look, `targets` to change.",
    404: "There is no such row.",
    411: "A body without a Content-Length.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    503: "A database is away, or the question took too long; come back after `Retry-After` s.",
}
_LOOKING, _BODY = (400, 401, 403, 503), (411, 413, 415)

_LIMIT = OpenApiParameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}
)
_BEFORE = OpenApiParameter(
    "before",
    {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    description="Rows with a lower id: `next` names the address of the next page.",
)
_AFTER = OpenApiParameter(
    "after",
    {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    description="Rows with a higher id: `next` names the address of the next page.",
)
_FILTERS = [
    OpenApiParameter("status", str, enum=sorted(STATUSES)),
    OpenApiParameter("tag", str, many=True, description="Targets with all of these tags."),
    OpenApiParameter("group", str),
    OpenApiParameter("kind", str),
    OpenApiParameter("search", str, description="A part of the name."),
    OpenApiParameter("paused", str, enum=["false", "true"]),
    OpenApiParameter("id", str, description="Ids separated by commas."),
]
_TARGET_ID = OpenApiParameter("target", {"type": "integer", "minimum": 1, "maximum": 2**63 - 1})
_OUTCOME = OpenApiParameter("outcome", str, enum=["degraded", "failed", "ok", "void"])


def _responses(ok: int, body: Any, text: str, *refusals: int) -> dict[Any, Any]:
    responses: dict[Any, Any] = {ok: OpenApiResponse(body, description=text)}
    for status in (*_LOOKING, *refusals):
        responses[(status, "application/problem+json")] = OpenApiResponse(
            _PROBLEM, description=_REFUSALS[status]
        )
    return responses


def _page(name: str, of: Any) -> Any:
    return inline_serializer(
        name=name,
        fields={"results": of, "next": serializers.URLField(allow_null=True)},
    )


def _nullable(*names: str) -> dict[str, Any]:
    return {name: serializers.FloatField(allow_null=True) for name in names}


def _result(**how: Any) -> Any:
    return inline_serializer(
        name="Result",
        fields={
            "id": serializers.IntegerField(),
            "target": serializers.IntegerField(),
            "timestamp": serializers.DateTimeField(),
            "outcome": serializers.CharField(),
            "latency_ms": serializers.FloatField(),
            "phases": inline_serializer(
                name="Phases", fields=_nullable("dns_ms", "connect_ms", "tls_ms", "first_byte_ms")
            ),
            "code": serializers.IntegerField(allow_null=True),
            "address": serializers.CharField(allow_blank=True),
            "error": serializers.CharField(allow_blank=True),
        },
        **how,
    )


_FLIP = inline_serializer(
    name="FlipDocument",
    fields={
        "id": serializers.IntegerField(),
        "seq": serializers.IntegerField(),
        "from": serializers.CharField(),
        "to": serializers.CharField(),
        "at": serializers.DateTimeField(),
        "reason": serializers.CharField(allow_blank=True),
        "flapping": serializers.BooleanField(),
    },
    many=True,
)
_LATENCY = inline_serializer(
    name="Latency",
    fields={
        "start": serializers.DateTimeField(),
        "end": serializers.DateTimeField(),
        **_nullable("p50", "p95", "p99"),
        "count": serializers.IntegerField(),
        "failed": serializers.IntegerField(),
        "points": inline_serializer(
            name="LatencyPoint",
            fields={
                "at": serializers.DateTimeField(),
                "count": serializers.IntegerField(),
                "failed": serializers.IntegerField(),
                **_nullable("p50", "p95", "p99"),
            },
            many=True,
        ),
    },
)


_RESULT_PAGE = _page("ResultPage", _result(many=True))
_INCIDENT_TARGET = inline_serializer(
    name="IncidentTarget",
    fields={"id": serializers.IntegerField(), "name": serializers.CharField()},
)


def _incident_fields() -> dict[str, Any]:
    return {
        "id": serializers.IntegerField(),
        "target": _INCIDENT_TARGET,
        "severity": serializers.ChoiceField(choices=SEVERITIES),
        "cause": serializers.CharField(allow_blank=True),
        "opened_at": serializers.DateTimeField(),
        "closed_at": serializers.DateTimeField(allow_null=True),
        "acknowledged_at": serializers.DateTimeField(allow_null=True),
        "acknowledged_by": serializers.CharField(allow_null=True),
        "suppressed_by": serializers.IntegerField(allow_null=True),
        "public": serializers.BooleanField(),
    }


_INCIDENTS = inline_serializer(name="IncidentListed", fields=_incident_fields(), many=True)
_INCIDENT = inline_serializer(
    name="IncidentWhole",
    fields={
        **_incident_fields(),
        "postmortem": serializers.CharField(allow_blank=True),
        "timeline": inline_serializer(
            name="TimelineEntry",
            fields={
                "at": serializers.DateTimeField(),
                "kind": serializers.CharField(),
                "author": serializers.CharField(allow_null=True),
                "text": serializers.CharField(allow_blank=True),
                "public": serializers.BooleanField(),
            },
            many=True,
        ),
    },
)
_UPDATED = inline_serializer(name="Updated", fields={"updated": serializers.IntegerField()})


def _operation(name: str, summary: str, tag: str, **more: Any) -> Any:
    return extend_schema(operation_id=name, summary=summary, tags=[tag], auth=_AUTH, **more)


targets = extend_schema_view(
    get=_operation(
        "targets_list",
        "List targets",
        "targets",
        parameters=[*_FILTERS, _LIMIT, _AFTER],
        responses=_responses(
            200, _page("TargetPage", TargetSerializer(many=True)), "In the order of their ids."
        ),
    ),
    post=_operation(
        "targets_create",
        "Register a target",
        "targets",
        request=TargetSerializer,
        responses=_responses(201, TargetSerializer, "Made; checkers see it in seconds.", *_BODY),
        examples=[
            OpenApiExample(
                "a web page",
                value={
                    "name": "shop",
                    "kind": "http",
                    "address": "https://shop.example/",
                    "interval_s": 30,
                    "tags": ["production"],
                },
                request_only=True,
            )
        ],
    ),
    patch=_operation(
        "targets_bulk_update",
        "Change every target that the filters let through",
        "targets",
        parameters=[
            *_FILTERS,
            OpenApiParameter(
                "all", str, enum=["true"], description="Needed where no filter is named."
            ),
        ],
        request=BulkSerializer,
        responses=_responses(200, _UPDATED, "How many were changed.", *_BODY),
    ),
)
target = extend_schema_view(
    get=_operation(
        "targets_retrieve",
        "Look at a target",
        "targets",
        responses=_responses(200, TargetSerializer, "The target.", 404),
    ),
    patch=_operation(
        "targets_update",
        "Change a target",
        "targets",
        request=TargetSerializer(partial=True),
        responses=_responses(200, TargetSerializer, "As it is now.", 404, *_BODY),
    ),
    delete=_operation(
        "targets_delete",
        "Remove a target with its flips and incidents",
        "targets",
        responses=_responses(204, None, "It is gone.", 404),
    ),
)
results = extend_schema_view(
    get=_operation(
        "results_list",
        "Results of probes, newest first",
        "results",
        parameters=[_TARGET_ID, _OUTCOME, _LIMIT, _BEFORE],
        responses=_responses(200, _RESULT_PAGE, "Newest first."),
    )
)
target_results = extend_schema_view(
    get=_operation(
        "targets_results",
        "Results of one target, newest first",
        "results",
        parameters=[_OUTCOME, _LIMIT, _BEFORE],
        responses=_responses(200, _RESULT_PAGE, "Newest first.", 404),
    )
)
target_flips = extend_schema_view(
    get=_operation(
        "targets_flips",
        "Changes of a target's status, newest first",
        "results",
        parameters=[_LIMIT, _BEFORE],
        responses=_responses(200, _page("FlipPage", _FLIP), "Newest first.", 404),
    )
)
target_latency = extend_schema_view(
    get=_operation(
        "targets_latency",
        "Percentiles of a target's latency over time",
        "results",
        parameters=[
            OpenApiParameter("start", OpenApiTypes.DATETIME, description="A day before `end`."),
            OpenApiParameter("end", OpenApiTypes.DATETIME, description="Now."),
            OpenApiParameter(
                "points", {"type": "integer", "minimum": 1, "maximum": 500, "default": 120}
            ),
        ],
        responses=_responses(200, _LATENCY, "Milliseconds.", 404),
    )
)
incidents = extend_schema_view(
    get=_operation(
        "incidents_list",
        "Incidents, newest first",
        "incidents",
        parameters=[
            OpenApiParameter("open", str, enum=["false", "true"]),
            _TARGET_ID,
            OpenApiParameter("severity", str, enum=sorted(name for name, _ in SEVERITIES)),
            _LIMIT,
            _BEFORE,
        ],
        responses=_responses(200, _page("IncidentPage", _INCIDENTS), "Newest first."),
    )
)
incident = extend_schema_view(
    get=_operation(
        "incidents_retrieve",
        "An incident with its timeline",
        "incidents",
        responses=_responses(200, _INCIDENT, "The incident.", 404),
    )
)
acknowledge = extend_schema_view(
    post=_operation(
        "incidents_acknowledge",
        "Say that somebody looks after it",
        "incidents",
        description="Ends its reminders. Harmless again.",
        request=None,
        responses=_responses(200, _INCIDENT, "As it is now.", 404, 413),
    )
)
comment = extend_schema_view(
    post=_operation(
        "incidents_comment",
        "Add a line to the timeline",
        "incidents",
        request=CommentSerializer,
        responses=_responses(201, _INCIDENT, "As it is now.", 404, *_BODY),
    )
)
probe = extend_schema_view(
    get=_operation(
        "probe_retrieve",
        "Probe something now, for a scraper",
        "probes",
        description="Compatible with blackbox_exporter: the result as metrics, 200 whatever it is.",
        parameters=[
            OpenApiParameter("target", str, required=True, description="What to probe."),
            OpenApiParameter(
                "module",
                str,
                description="A kind of probe with its defaults, or the name of a target, whose "
                "options are taken. `http` where there is none.",
            ),
            OpenApiParameter("timeout", {"type": "number", "minimum": 0.1, "maximum": 60}),
        ],
        responses={
            (200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, description="Metrics."),
            **{
                (status, "application/problem+json"): OpenApiResponse(_PROBLEM, description=text)
                for status, text in {
                    **{status: _REFUSALS[status] for status in (400, 401, 403, 503)},
                    429: "As many probes as may run at once run already.",
                }.items()
            },
        },
    )
)
