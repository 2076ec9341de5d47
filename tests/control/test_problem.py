"""Errors as problem+json and request ids: for plain views, for DRF, for what nobody expected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.test import RequestFactory
from rest_framework import exceptions, serializers
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from control.web import problem as problems
from control.web.problem import problem
from control.web.requestid import (
    RequestIdMiddleware,
    current_request_id,
    request_id_of,
    take_request_id,
)


def body_of(response: Any) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert isinstance(body, dict)
    return body


class Shape(serializers.Serializer[Any]):
    count = serializers.IntegerField(min_value=1)


class View(APIView):
    """Raises what the test wants raised."""

    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)
    error: BaseException | None = None

    def post(self, request: Any) -> Response:
        if self.error is not None:
            raise self.error
        Shape(data=request.data).is_valid(raise_exception=True)
        return Response({})


def call(rf: RequestFactory, error: BaseException | None = None, **request: Any) -> Any:
    view = View.as_view(error=error) if error is not None else View.as_view()
    request = {"data": "{}", "content_type": "application/json", **request}
    raw = rf.post("/x", HTTP_X_REQUEST_ID="req-1", **request)
    return RequestIdMiddleware(view)(raw)


def test_the_members_of_a_problem() -> None:
    response = problem(
        429,
        title="Too Many Requests",
        detail="Full.",
        code="saturated",
        request_id="r",
        headers={"Retry-After": "3"},
        limit=10,
        status_text="x",
    )
    assert response["Retry-After"] == "3"
    assert body_of(response) == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Full.",
        "code": "saturated",
        "request_id": "r",
        "limit": 10,
        "status_text": "x",
    }


def test_extra_members_do_not_replace_the_standard_ones() -> None:
    extra: dict[str, Any] = {"type": "evil"}
    assert body_of(problem(400, title="t", detail="d", code="c", request_id="r", **extra))[
        "type"
    ] == ("about:blank")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (exceptions.NotAuthenticated(), 401, "unauthenticated"),
        (exceptions.PermissionDenied(), 403, "forbidden"),
        (exceptions.NotFound(), 404, "not_found"),
        (exceptions.ParseError(), 400, "bad_request"),
        (exceptions.Throttled(wait=2.4), 429, "too_many_requests"),
        (exceptions.UnsupportedMediaType("text/x"), 415, "unsupported_media_type"),
        (Http404("secret/path"), 404, "not_found"),
        (PermissionDenied("secret"), 403, "forbidden"),
        (SuspiciousOperation("secret"), 400, "bad_request"),
        (BadRequest("secret"), 400, "bad_request"),
    ],
)
def test_known_errors(rf: RequestFactory, error: Exception, status: int, code: str) -> None:
    response = call(rf, error)
    assert response.status_code == status
    body = body_of(response)
    assert (body["status"], body["code"], body["request_id"]) == (status, code, "req-1")
    assert "secret" not in response.content.decode()


def test_a_wait_becomes_whole_seconds_of_at_least_one(rf: RequestFactory) -> None:
    assert call(rf, exceptions.Throttled(wait=0.01))["Retry-After"] == "1"
    assert call(rf, exceptions.Throttled(wait=2.4))["Retry-After"] == "3"


@pytest.mark.parametrize(
    ("request_args", "status", "code"),
    [
        ({"content_type": "text/x"}, 415, "unsupported_media_type"),
        ({"HTTP_ACCEPT": "image/png"}, 406, "not_acceptable"),
        ({"data": "{"}, 400, "bad_request"),
    ],
)
def test_what_drf_refuses_by_itself(
    rf: RequestFactory, request_args: dict[str, Any], status: int, code: str
) -> None:
    response = call(rf, **request_args)
    assert (response.status_code, body_of(response)["code"]) == (status, code)


def test_a_wrong_method_names_the_right_ones(rf: RequestFactory) -> None:
    response = RequestIdMiddleware(View.as_view())(rf.delete("/x"))
    assert response.status_code == 405
    assert isinstance(response, HttpResponse)
    assert body_of(response)["code"] == "method_not_allowed"
    assert "POST" in response["Allow"]


def test_invalid_values_are_listed(rf: RequestFactory) -> None:
    body = body_of(call(rf, data='{"count": 0}'))
    assert (body["status"], body["code"]) == (400, "invalid")
    assert "count" in body["errors"]


def test_an_unexpected_error_tells_the_log_and_not_the_client(
    rf: RequestFactory, caplog: pytest.LogCaptureFixture
) -> None:
    response = call(rf, ZeroDivisionError("password=hunter2"))
    assert response.status_code == 500
    assert "hunter2" not in response.content.decode()
    assert "ZeroDivisionError" not in response.content.decode()
    assert body_of(response)["request_id"] == "req-1"
    (record,) = [r for r in caplog.records if r.name == "control.web.problem"]
    assert record.exc_info is not None
    assert record.request_id == "req-1"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (lambda r: problems.bad_request(r, ValueError()), 400),
        (lambda r: problems.permission_denied(r, ValueError()), 403),
        (lambda r: problems.page_not_found(r, ValueError()), 404),
        (problems.server_error, 500),
    ],
)
def test_the_projects_error_views(rf: RequestFactory, view: Any, status: int) -> None:
    response = view(rf.get("/nowhere"))
    assert (response.status_code, body_of(response)["status"]) == (status, status)


# --- request ids -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", ["a", "req-1", "x" * 128, "0af7651916cd43dd8448eb211c80319c", "~!"]
)
def test_a_harmless_id_is_taken(sent: str) -> None:
    assert take_request_id(sent) == sent


@pytest.mark.parametrize(
    "sent", [None, "", "x" * 129, "a b", "a\nb", "a\x00", "ü", "\x7f", "\x1b[2J"]
)
def test_any_other_is_replaced(sent: str | None) -> None:
    made = take_request_id(sent)
    assert made != sent
    assert len(made) == 32
    assert take_request_id(sent) != made


def test_the_id_is_echoed_and_current_while_the_request_runs(rf: RequestFactory) -> None:
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append((request_id_of(request), current_request_id.get()))
        return HttpResponse()

    response = RequestIdMiddleware(view)(rf.get("/", HTTP_X_REQUEST_ID="mine"))
    assert response.headers["X-Request-ID"] == "mine"
    assert seen == [("mine", "mine")]
    assert current_request_id.get() == ""


def test_the_id_is_let_go_of_when_the_view_fails(rf: RequestFactory) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        raise ValueError

    with pytest.raises(ValueError):
        RequestIdMiddleware(view)(rf.get("/"))
    assert current_request_id.get() == ""


def test_without_the_middleware_an_id_is_made_once(rf: RequestFactory) -> None:
    request = rf.get("/")
    assert request_id_of(request) == request_id_of(request) != ""
