"""The WSGI application: ingest, jobs and probes through a short middleware list, the rest the full.

Called on the server's request threads; both handlers are made once, while the worker loads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from django import setup
from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, get_resolver
from django.utils.module_loading import import_string

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "collector_site.settings")

StartResponse = Callable[..., Any]
PROBES = frozenset({"/healthz", "/readyz", "/stats", "/metrics"})
JOBS = "/jobs"
BELOW = ("/ping/", "/jobs/")


class ShortHandler(WSGIHandler):
    """Django's handler over `settings.INGEST_MIDDLEWARE`, whose members are plain callables."""

    def load_middleware(self, is_async: bool = False) -> None:
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        chain = convert_exception_to_response(self._get_response)  # type: ignore[attr-defined]
        for path in reversed(settings.INGEST_MIDDLEWARE):
            chain = convert_exception_to_response(import_string(path)(chain))
        self._middleware_chain = chain

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        response = super().get_response(request)
        if isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
            response.headers["Content-Length"] = str(len(response.content))
        return response


class Dispatch:
    """Chooses the handler by path: those that `ingest.urls` names exactly, pings, jobs, probes."""

    def __init__(self) -> None:
        self._full = WSGIHandler()
        self._short = ShortHandler()
        self._paths = PROBES | ingest_paths() | {JOBS}
        get_resolver()._populate()  # now, rather than in the first request

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        short = path in self._paths or path.startswith(BELOW)
        chosen = self._short if short else self._full
        response: Iterable[bytes] = chosen(environ, start_response)
        return response


def ingest_paths() -> frozenset[str]:
    from ingest.urls import urlpatterns

    routes = (str(item.pattern) for item in urlpatterns if isinstance(item, URLPattern))
    return frozenset("/" + route for route in routes if "<" not in route)


setup(set_prefix=False)
application = Dispatch()
