"""The bodies of answers as `/api/schema` tells of them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import inline_serializer
from rest_framework import serializers

from control.web.openapi import page_of
from healthmon.targets.models import SEVERITIES


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


FLIP = inline_serializer(
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
LATENCY = inline_serializer(
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


RESULT_PAGE = page_of("ResultPage", _result(many=True))
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


INCIDENTS = inline_serializer(name="IncidentListed", fields=_incident_fields(), many=True)
INCIDENT = inline_serializer(
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
UPDATED = inline_serializer(name="Updated", fields={"updated": serializers.IntegerField()})
