"""The views of ingest: DRF's, for schema and error handling, without what they do not use.

Negotiation, parsing, DRF's authentication and throttling cost three times what decoding a record
does, and none of it applies here: formats are told by `ingest.wire`, callers by
`control.web.access`.  So `dispatch` goes straight to the handler.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse
from rest_framework.views import APIView

from control.web import health as probes
from control.web.problem import problem
from control.web.requestid import request_id_of
from ingest import metrics
from ingest.api import schema
from ingest.api.intake import take_in
from ingest.wire.kinds import COUNTERS, EVENTS, HEALTH, LOGS, Kind


class IngestView(APIView):
    """One address that takes records in."""

    kind: ClassVar[Kind]
    path: ClassVar[str]
    http_method_names = ["post", "head", "options"]
    authentication_classes = ()
    permission_classes = ()

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        method = request.method
        try:
            if method == "POST":
                response = take_in(request, self.kind)
            elif method == "HEAD":
                response = HttpResponse(content_type="application/json")
            elif method == "GET" and "get" in self.http_method_names:
                response = self.get(request)  # type: ignore[attr-defined]
            elif method == "OPTIONS":
                response = HttpResponse(headers={"Allow": self._allow()})
            else:
                response = self._not_allowed(request)
        except Exception as error:
            self.request = request  # type: ignore[assignment]
            response = self.handle_exception(error)
        metrics.count_request(self.path, response.status_code)
        return response

    def _allow(self) -> str:
        return ", ".join(sorted(name.upper() for name in self.http_method_names))

    def _not_allowed(self, request: HttpRequest) -> HttpResponse:
        return problem(
            405,
            title="Method Not Allowed",
            detail=f"{self.path} takes {self._allow()}",
            code="method_not_allowed",
            request_id=request_id_of(request),
            headers={"Allow": self._allow()},
        )


@schema.logs
class LogsView(IngestView):
    kind, path = LOGS, "/logs"

    def post(self, request: HttpRequest) -> HttpResponse:
        return take_in(request, self.kind)


@schema.health
class HealthView(IngestView):
    kind, path = HEALTH, "/health"
    http_method_names = ["get", "post", "head", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        return take_in(request, self.kind)

    def get(self, request: HttpRequest) -> HttpResponse:
        return probes.health(request)


@schema.events
class EventsView(IngestView):
    kind, path = EVENTS, "/event"

    def post(self, request: HttpRequest) -> HttpResponse:
        return take_in(request, self.kind)


@schema.counters
class CountersView(IngestView):
    kind, path = COUNTERS, "/counters"

    def post(self, request: HttpRequest) -> HttpResponse:
        return take_in(request, self.kind)
