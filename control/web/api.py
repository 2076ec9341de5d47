"""What every REST view shares: who may call, how much is read, how errors are told.

Callers are told apart by `control.web.access` alone: `read` to look, a view's `write_scope` to
change.  A body is refused before it is read when it is too long.  Runs on request threads; keeps
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, ClassVar

from django.core.exceptions import BadRequest
from django.db import Error as DatabaseProblem
from django.http import HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from control.admin.deadline import QueryDeadlineExceeded
from control.auth.keys import Principal
from control.auth.models import ApiKey
from control.databases.causes import cause_of, is_loss
from control.web.access import authorize
from control.web.jsonbody import BadJson, decode_json
from control.web.problem import problem
from control.web.requestid import request_id_of

MAX_BODY_BYTES = 256 * 1024
MAX_DEPTH = 20
QUERY_DEADLINE_S = 5.0
RETRY_AFTER_S = 5

READ = "read"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Answered(Exception):
    """The request has its answer already."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__()
        self.response = response


class BoundedJsonParser(BaseParser):
    """JSON of bounded length and depth, without what a database cannot hold."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        raw = stream.read(MAX_BODY_BYTES + 1)
        if len(raw) > MAX_BODY_BYTES:
            raise too_large()
        try:
            return decode_json(raw, max_depth=MAX_DEPTH)
        except BadJson as error:
            raise exceptions.ParseError(str(error)) from None


class TooLarge(exceptions.APIException):
    status_code = 413
    default_code = "too_large"


def too_large(limit: int = MAX_BODY_BYTES) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


class LengthRequired(exceptions.APIException):
    status_code = 411
    default_code = "length_required"


class ApiView(APIView):
    """One address of an API."""

    authentication_classes = ()
    permission_classes = ()
    parser_classes = (BoundedJsonParser,)
    renderer_classes = (JSONRenderer,)
    principal: Principal
    # What changing takes, where `scopes` does not say otherwise of a method.
    write_scope: ClassVar[str]
    scopes: ClassVar[Mapping[str, str]] = {}
    # Looking takes any one of these.
    scopes_to_look: ClassVar[tuple[str, ...]] = (READ,)
    # By method, what the query may name.  A parameter that is not known would be a filter that
    # does not filter, which changes or shows more than was meant.
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # What makes a question of this view quick.
    narrow_by: ClassVar[str] = "a filter"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        method = request.method or ""
        plain: HttpRequest = request._request
        looking = self.scopes_to_look if method in _SAFE else (self.write_scope,)
        own = self.scopes.get(method)
        verdict = authorize(plain, *((own,) if own else looking))
        if isinstance(verdict, HttpResponse):
            raise Answered(verdict)
        self.principal = verdict
        self._check_length(plain)
        if any("\0" in text for texts in plain.GET.lists() for text in (texts[0], *texts[1])):
            raise BadRequest
        super().initial(request, *args, **kwargs)
        self._check_parameters(plain, "GET" if method == "HEAD" else method)

    def _check_parameters(self, request: HttpRequest, method: str) -> None:
        if method not in self._known_methods():
            return
        known = self.parameters.get(method, ())
        unknown = [name for name in request.GET if name not in known]
        if unknown:
            told = f"known are {', '.join(known)}" if known else "there are none here"
            raise exceptions.ValidationError(
                {name[:100]: [f"There is no such parameter; {told}."] for name in unknown[:10]}
            )

    def _known_methods(self) -> list[str]:
        return [name for name in self.allowed_methods if name != "OPTIONS"]

    def said_by(self) -> str:
        """Who asks, for a timeline: keys are nobody's user."""
        key = ApiKey.objects.filter(pk=self.principal.key_id or 0).first()
        return f"(through the API, with the key {key.name})" if key else "(through the API)"

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """JSON, whatever a scraper or a browser would rather have."""
        return JSONRenderer(), JSONRenderer.media_type

    @staticmethod
    def _check_length(request: HttpRequest) -> None:
        length = request.META.get("CONTENT_LENGTH") or ""
        if not length and "HTTP_TRANSFER_ENCODING" in request.META:
            raise LengthRequired("A body needs a Content-Length here.")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise too_large()

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, Answered):
            return exc.response
        if isinstance(exc, QueryDeadlineExceeded):
            detail = (
                f"The question was stopped after {QUERY_DEADLINE_S:g} s: narrow it, "
                f"by {self.narrow_by}."
            )
            return unavailable(self.request, detail, "query_too_slow")
        if isinstance(exc, DatabaseProblem) and is_loss(exc):
            return database_away(self.request, exc)
        return super().handle_exception(exc)


def database_away(request: HttpRequest | Request, error: BaseException) -> HttpResponse:
    return unavailable(request, f"A database is away: {cause_of(error)}", "database_away")


def unavailable(request: HttpRequest | Request, detail: str, code: str) -> HttpResponse:
    plain: HttpRequest = getattr(request, "_request", request)
    return problem(
        503,
        title="Service Unavailable",
        detail=detail,
        code=code,
        request_id=request_id_of(plain),
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )
