"""What `/api/schema` says of targets, results and incidents: the operations of each view."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_view,
)

from control.web.openapi import LIMIT, PROBLEM, operation, page_of
from healthmon.api.incidentform import CommentSerializer
from healthmon.api.schemabodies import (
    FLIP,
    INCIDENT,
    INCIDENTS,
    LATENCY,
    RESULT_PAGE,
    UPDATED,
)
from healthmon.api.schemaparts import (
    AFTER,
    BEFORE,
    BODY,
    FILTERS,
    OUTCOME,
    REFUSALS,
    TARGET_ID,
    responses,
)
from healthmon.api.targetform import BulkSerializer, TargetSerializer
from healthmon.targets.models import SEVERITIES

targets = extend_schema_view(
    get=operation(
        "targets_list",
        "List targets",
        "targets",
        parameters=[*FILTERS, LIMIT, AFTER],
        responses=responses(
            200, page_of("TargetPage", TargetSerializer(many=True)), "In the order of their ids."
        ),
    ),
    post=operation(
        "targets_create",
        "Register a target",
        "targets",
        request=TargetSerializer,
        responses=responses(201, TargetSerializer, "Made; checkers see it in seconds.", *BODY),
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
    patch=operation(
        "targets_bulk_update",
        "Change every target that the filters let through",
        "targets",
        parameters=[
            *FILTERS,
            OpenApiParameter(
                "all", str, enum=["true"], description="Needed where no filter is named."
            ),
        ],
        request=BulkSerializer,
        responses=responses(200, UPDATED, "How many were changed.", *BODY),
    ),
)
target = extend_schema_view(
    get=operation(
        "targets_retrieve",
        "Look at a target",
        "targets",
        responses=responses(200, TargetSerializer, "The target.", 404),
    ),
    patch=operation(
        "targets_update",
        "Change a target",
        "targets",
        request=TargetSerializer(partial=True),
        responses=responses(200, TargetSerializer, "As it is now.", 404, *BODY),
    ),
    delete=operation(
        "targets_delete",
        "Remove a target with its flips and incidents",
        "targets",
        responses=responses(204, None, "It is gone.", 404),
    ),
)
results = extend_schema_view(
    get=operation(
        "results_list",
        "Results of probes, newest first",
        "results",
        parameters=[TARGET_ID, OUTCOME, LIMIT, BEFORE],
        responses=responses(200, RESULT_PAGE, "Newest first."),
    )
)
target_results = extend_schema_view(
    get=operation(
        "targets_results",
        "Results of one target, newest first",
        "results",
        parameters=[OUTCOME, LIMIT, BEFORE],
        responses=responses(200, RESULT_PAGE, "Newest first.", 404),
    )
)
target_flips = extend_schema_view(
    get=operation(
        "targets_flips",
        "Changes of a target's status, newest first",
        "results",
        parameters=[LIMIT, BEFORE],
        responses=responses(200, page_of("FlipPage", FLIP), "Newest first.", 404),
    )
)
target_latency = extend_schema_view(
    get=operation(
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
        responses=responses(200, LATENCY, "Milliseconds.", 404),
    )
)
incidents = extend_schema_view(
    get=operation(
        "incidents_list",
        "Incidents, newest first",
        "incidents",
        parameters=[
            OpenApiParameter("open", str, enum=["false", "true"]),
            TARGET_ID,
            OpenApiParameter("severity", str, enum=sorted(name for name, _ in SEVERITIES)),
            LIMIT,
            BEFORE,
        ],
        responses=responses(200, page_of("IncidentPage", INCIDENTS), "Newest first."),
    )
)
incident = extend_schema_view(
    get=operation(
        "incidents_retrieve",
        "An incident with its timeline",
        "incidents",
        responses=responses(200, INCIDENT, "The incident.", 404),
    )
)
acknowledge = extend_schema_view(
    post=operation(
        "incidents_acknowledge",
        "Say that somebody looks after it",
        "incidents",
        description="Ends its reminders. Harmless again.",
        request=None,
        responses=responses(200, INCIDENT, "As it is now.", 404, 413),
    )
)
comment = extend_schema_view(
    post=operation(
        "incidents_comment",
        "Add a line to the timeline",
        "incidents",
        request=CommentSerializer,
        responses=responses(201, INCIDENT, "As it is now.", 404, *BODY),
    )
)
probe = extend_schema_view(
    get=operation(
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
                (status, "application/problem+json"): OpenApiResponse(PROBLEM, description=text)
                for status, text in {
                    **{status: REFUSALS[status] for status in (400, 401, 403, 503)},
                    429: "As many probes as may run at once run already.",
                }.items()
            },
        },
    )
)
