"""Middleware of every request: which names this server answers to.

Runs on request threads; `_lock` guards the names that the log has been told of.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import ClassVar

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase

from collector_site.refusals import inert
from control.web.problem import problem
from control.web.requestid import request_id_of

logger = logging.getLogger(__name__)

# Asked by load balancers and orchestrators under whatever address they know.
PROBES = frozenset({"/healthz", "/readyz"})
MAX_NAME_CHARS = 100
# A stranger can send a new name with each request; the log hears of so many.
MAX_NAMES_LOGGED = 100


class KnownHostMiddleware:
    """Refuse a Host name that is not ours.

    Ingest trusts a direct loopback peer when there are no API keys. A browser on this machine is
    such a peer, and a page from anywhere can point a name of its own at 127.0.0.1.
    """

    # Shared: the short and the full list have an instance each.
    _lock = threading.Lock()
    _logged: ClassVar[set[str]] = set()

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path not in PROBES:
            try:
                request.get_host()
            except DisallowedHost:
                return self._refuse(request)
        return self._get_response(request)

    def _refuse(self, request: HttpRequest) -> HttpResponseBase:
        sent = request.META.get("HTTP_HOST", "")
        name = inert(split_domain_port(sent)[0] or sent, MAX_NAME_CHARS)
        request_id = request_id_of(request)
        self._log(name, request_id)
        return problem(
            400,
            title="Unknown host",
            detail=f"this server does not answer to the name {name}; "
            "add it to COLLECTOR_ALLOWED_HOSTS",
            code="unknown_host",
            request_id=request_id,
        )

    def _log(self, name: str, request_id: str) -> None:
        with self._lock:
            if name in self._logged or len(self._logged) >= MAX_NAMES_LOGGED:
                return
            self._logged.add(name)
            last = len(self._logged) == MAX_NAMES_LOGGED
        logger.warning(
            "request refused: this server does not answer to the name it was sent to; "
            "add the name to COLLECTOR_ALLOWED_HOSTS if it is yours"
            + ("; further names are not logged" if last else ""),
            extra={"host": name, "request_id": request_id},
        )
