"""What monitoring asks this process: `/stats` and `/metrics`, for loopback or a key that may read.

Run on request threads; the figures come from memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import msgspec
import prometheus_client
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe
from prometheus_client import multiprocess

from control.ports.stats import stats as process_stats
from control.processes import metricfiles
from control.web.access import authorize

View = Callable[[HttpRequest], HttpResponse]
_encode = msgspec.json.Encoder(enc_hook=str).encode


def for_readers(view: View) -> Callable[[HttpRequest], HttpResponseBase]:
    """Let the view answer a direct loopback peer, or whoever has a key with the scope `read`."""

    @wraps(view)
    def checked(request: HttpRequest) -> HttpResponseBase:
        refused = _refusal(request)
        return refused if refused is not None else view(request)

    return checked


def _refusal(request: HttpRequest) -> HttpResponseBase | None:
    from control.web.access import is_direct_loopback

    if is_direct_loopback(request):
        return None
    verdict = authorize(request, "read")
    return verdict if isinstance(verdict, HttpResponseBase) else None


@require_safe
@for_readers
def stats(request: HttpRequest) -> HttpResponse:
    body = {"pid": os.getpid(), **process_stats()}
    return HttpResponse(_encode(body), content_type="application/json")


@require_safe
def metrics(request: HttpRequest) -> HttpResponseBase:
    if not settings.COLLECTOR.server.public_metrics:
        refused = _refusal(request)
        if refused is not None:
            return refused
    process_stats()  # reading them sets the gauges of this process
    registry: Any = prometheus_client.REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    # With those of processes that serve nothing, checkers above all.
    folder = metricfiles.directory(settings.COLLECTOR.server.data_dir)
    registry = metricfiles.WithOthers(registry=registry, folder=folder)
    return HttpResponse(
        prometheus_client.generate_latest(registry),
        content_type=prometheus_client.CONTENT_TYPE_LATEST,
    )
