"""The baseline of one record a request: a Django view and nothing else, on the product's server.

`benchmarks.bare:application` answers /bare through Django with no middleware at all and hands
every other path to the product. Only the benchmark's server is started with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.urls import path

from collector_site.wsgi import application as product


def bare(request: HttpRequest) -> JsonResponse:
    """Reads the body, as any view that takes a record must, and keeps nothing."""
    return JsonResponse({"accepted": 1 if request.body else 0}, status=202)


urlpatterns = [path("bare/logs", bare)]


class BareHandler(WSGIHandler):
    def load_middleware(self, is_async: bool = False) -> None:
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        self._middleware_chain = convert_exception_to_response(self._get_response)  # type: ignore[attr-defined]

    def get_response(self, request: Any) -> Any:
        request.urlconf = __name__
        return super().get_response(request)


_bare = BareHandler()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ.get("PATH_INFO") == "/bare/logs":
        return _bare(environ, start_response)
    return product(environ, start_response)
