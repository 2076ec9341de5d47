"""`/api/incidents`: what went down, since when, and what was said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db import transaction
from django.shortcuts import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from control.web.paging import BEFORE, choice, flag, page, whole
from healthmon.api import schema
from healthmon.api.base import MAX_ID, ApiView
from healthmon.api.incidentform import CommentSerializer
from healthmon.targets.models import SEVERITIES
from healthmon.truth import incidents as truth
from healthmon.truth.models import Incident

MAX_ENTRIES = 1_000


@schema.incidents
class IncidentsView(ApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "GET": ("open", "target", "severity", *BEFORE)
    }

    def get(self, request: Request) -> Response:
        rows = Incident.objects.select_related("target", "acknowledged_by")
        is_open = flag(request, "open")
        if is_open is not None:
            rows = rows.filter(closed_at__isnull=is_open)
        target_id = whole(request, "target", -1, low=1, high=MAX_ID)
        if target_id > 0:
            rows = rows.filter(target_id=target_id)
        severity = choice(request, "severity", [name for name, _ in SEVERITIES])
        if severity is not None:
            rows = rows.filter(severity=severity)
        return page(request, rows, document)


@schema.incident
class IncidentView(ApiView):
    def get(self, request: Request, pk: int) -> Response:
        return Response(_with_timeline(_one(pk)))


@schema.acknowledge
class AcknowledgeView(ApiView):
    def post(self, request: Request, pk: int) -> Response:
        """Harmless again: the first acknowledgement stays."""
        incident = _one(pk)
        truth.acknowledge(incident, None, text=self.said_by())
        return Response(_with_timeline(_one(pk)))


@schema.comment
class CommentView(ApiView):
    def post(self, request: Request, pk: int) -> Response:
        incident = _one(pk)
        form = CommentSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        text, public = form.validated_data["text"], form.validated_data["public"]
        with transaction.atomic(using="default"):
            # The public need not read which key it was.
            entry = truth.comment(incident, None, text if public else f"{text}\n{self.said_by()}")
            if public:
                entry.public = True
                entry.save(update_fields=["public"])
        return Response(_with_timeline(_one(pk)), status=201)


def _one(pk: int) -> Incident:
    rows = Incident.objects.select_related("target", "acknowledged_by")
    row: Incident = get_object_or_404(rows, pk=pk)
    return row


def document(row: Incident) -> dict[str, Any]:
    by = row.acknowledged_by
    return {
        "id": row.pk,
        "target": {"id": row.target_id, "name": row.target.name},
        "severity": row.severity,
        "cause": row.cause,
        "opened_at": row.opened_at,
        "closed_at": row.closed_at,
        "acknowledged_at": row.acknowledged_at,
        "acknowledged_by": by.get_username() if by else None,
        "suppressed_by": row.suppressed_by_id,
        "public": row.public,
    }


def _with_timeline(row: Incident) -> dict[str, Any]:
    entries = row.entries.select_related("author")[:MAX_ENTRIES]
    return {
        **document(row),
        "postmortem": row.postmortem,
        "timeline": [
            {
                "at": entry.at,
                "kind": entry.kind,
                "author": entry.author.get_username() if entry.author else None,
                "text": entry.text,
                "public": entry.public,
            }
            for entry in entries
        ],
    }
