"""Middleware of the short list that ingest and the probes go through."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

# Asked by load balancers and orchestrators under whatever address they know.
PROBES = frozenset({"/healthz", "/readyz"})


class KnownHostMiddleware:
    """Refuse a Host name that is not ours.

    Ingest trusts a direct loopback peer when there are no API keys. A browser on this machine is
    such a peer, and a page from anywhere can point a name of its own at 127.0.0.1.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path not in PROBES:
            request.get_host()  # raises DisallowedHost, which becomes a 400
        return self._get_response(request)
