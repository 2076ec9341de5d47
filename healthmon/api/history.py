"""What has been measured: results, flips, and latencies over time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from control.admin.deadline import query_deadline
from control.web.api import QUERY_DEADLINE_S
from control.web.paging import BEFORE, choice, moment, page, whole
from healthmon.api import schema
from healthmon.api.base import MAX_ID, ApiView
from healthmon.history import queries
from healthmon.history.models import ProbeResult
from healthmon.targets.models import Target
from healthmon.truth.models import Flip

OUTCOMES = ("ok", "degraded", "failed", "void")
MAX_POINTS = 500
LONGEST = timedelta(days=400)


@schema.results
class ResultsView(ApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {"GET": ("target", "outcome", *BEFORE)}

    def get(self, request: Request) -> Response:
        rows = ProbeResult.objects.all()
        target_id = whole(request, "target", -1, low=1, high=MAX_ID)
        if target_id > 0:
            rows = rows.filter(target_id=target_id)
        return _results(request, rows)


@schema.target_results
class TargetResultsView(ApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {"GET": ("outcome", *BEFORE)}

    def get(self, request: Request, pk: int) -> Response:
        _exists(pk)
        return _results(request, ProbeResult.objects.filter(target_id=pk))


def _results(request: Request, rows: QuerySet[ProbeResult]) -> Response:
    outcome = choice(request, "outcome", OUTCOMES)
    if outcome is not None:
        rows = rows.filter(outcome=outcome)
    return page(request, rows, result_document)


def result_document(row: ProbeResult) -> dict[str, Any]:
    return {
        "id": row.pk,
        "target": row.target_id,
        "timestamp": row.timestamp,
        "outcome": row.outcome,
        "latency_ms": row.latency_ms,
        "phases": {
            "dns_ms": row.dns_ms,
            "connect_ms": row.connect_ms,
            "tls_ms": row.tls_ms,
            "first_byte_ms": row.first_byte_ms,
        },
        "code": row.code or None,
        "address": row.address,
        "error": row.error,
    }


@schema.target_flips
class TargetFlipsView(ApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {"GET": BEFORE}

    def get(self, request: Request, pk: int) -> Response:
        _exists(pk)
        return page(request, Flip.objects.filter(target_id=pk), _flip_document)


def _flip_document(row: Flip) -> dict[str, Any]:
    return {
        "id": row.pk,
        "seq": row.seq,
        "from": row.from_status,
        "to": row.to_status,
        "at": row.at,
        "reason": row.reason,
        "flapping": row.flapping,
    }


@schema.target_latency
class TargetLatencyView(ApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {"GET": ("start", "end", "points")}

    def get(self, request: Request, pk: int) -> Response:
        _exists(pk)
        end = moment(request, "end", timezone.now())
        start = moment(request, "start", end - timedelta(days=1))
        if not timedelta() < end - start <= LONGEST:
            raise exceptions.ValidationError(
                {"start": [f"before end, by at most {LONGEST.days} days"]}
            )
        points = whole(request, "points", 120, low=1, high=MAX_POINTS)
        with query_deadline("records", QUERY_DEADLINE_S):
            found = queries.latency(pk, start, end, points=points)
            whole_window = queries.percentiles([pk], start, end).get(pk)
        return Response(
            {
                "start": start,
                "end": end,
                "p50": whole_window.p50 if whole_window else None,
                "p95": whole_window.p95 if whole_window else None,
                "p99": whole_window.p99 if whole_window else None,
                "count": whole_window.count if whole_window else 0,
                "failed": whole_window.failed if whole_window else 0,
                "points": [
                    {
                        "at": point.at,
                        "count": point.count,
                        "failed": point.failed,
                        "p50": point.p50,
                        "p95": point.p95,
                        "p99": point.p99,
                    }
                    for point in found
                ],
            }
        )


def _exists(pk: int) -> None:
    get_object_or_404(Target.objects.only("pk"), pk=pk)
