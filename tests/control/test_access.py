"""Who may call: loopback without keys, keys with scopes, and nobody through the back door."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from control.auth.keys import KeyRing, Principal, create_key
from control.web import access
from control.web.access import authorize, is_direct_loopback

Request = Callable[..., HttpRequest]


@pytest.fixture
def a_request(rf: RequestFactory) -> Request:
    def make(address: str = "127.0.0.1", **meta: str) -> HttpRequest:
        return rf.post("/logs", REMOTE_ADDR=address, **meta)  # type: ignore[arg-type]

    return make


@pytest.fixture
def require_key(settings: Any) -> Callable[[str], None]:
    def choose(policy: str) -> None:
        ingest = replace(settings.COLLECTOR.ingest, require_key=policy)
        settings.COLLECTOR = replace(settings.COLLECTOR, ingest=ingest)

    return choose


def refused(verdict: Principal | HttpResponse, status: int, code: str) -> bool:
    assert isinstance(verdict, HttpResponse)
    assert verdict["Content-Type"] == "application/problem+json"
    assert (verdict.status_code, f'"code":"{code}"' in verdict.content.decode()) == (status, True)
    return True


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "::1%lo"]
)
def test_loopback(a_request: Request, address: str) -> None:
    assert is_direct_loopback(a_request(address))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.0.1",
        "128.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "::",
        "0.0.0.0",
        "fe80::1%eth0",
        "2001:db8::127.0.0.1",
        "localhost",
        "127.0.0.1:80",
        "unix:/run/x.sock",
        "127.0.0.1, 10.0.0.1",
    ],
)
def test_not_loopback(a_request: Request, address: str) -> None:
    assert not is_direct_loopback(a_request(address))


@pytest.mark.parametrize(
    "header",
    ["FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_REAL_IP", "VIA", "CF_CONNECTING_IP"],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_what_was_forwarded_is_not_loopback(a_request: Request, header: str, value: str) -> None:
    assert not is_direct_loopback(a_request(**{f"HTTP_{header}": value}))


@pytest.mark.django_db
def test_without_keys_only_this_machine_is_served(a_request: Request) -> None:
    principal = authorize(a_request(), "logs")
    assert isinstance(principal, Principal)
    assert (principal.tenant, principal.any_tenant, principal.key_id) == ("default", True, None)
    assert refused(authorize(a_request("10.0.0.1"), "logs"), 401, "key_required")
    assert refused(authorize(a_request(HTTP_X_REAL_IP="127.0.0.1"), "logs"), 401, "key_required")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_ORIGIN": "https://evil.example"},
        {"HTTP_ORIGIN": "null"},
    ],
)
def test_without_keys_pages_of_other_sites_are_not_served(
    a_request: Request, headers: dict[str, str]
) -> None:
    assert refused(authorize(a_request(**headers), "logs"), 403, "cross_site")


@pytest.mark.django_db
def test_without_keys_our_own_page_is_served(a_request: Request) -> None:
    request = a_request(
        HTTP_HOST="localhost:8000",
        HTTP_ORIGIN="http://localhost:8000",
        HTTP_SEC_FETCH_SITE="same-origin",
    )
    assert isinstance(authorize(request, "logs"), Principal)


@pytest.mark.django_db
def test_with_a_key_in_the_world_loopback_needs_one(a_request: Request) -> None:
    key, token = create_key(tenant="default", name="app", scopes=["logs"])
    assert refused(authorize(a_request(), "logs"), 401, "key_required")
    for header in (
        {"HTTP_AUTHORIZATION": f"Bearer {token}"},
        {"HTTP_AUTHORIZATION": f"bearer  {token} "},
        {"HTTP_X_API_KEY": token},
    ):
        principal = authorize(a_request("10.0.0.1", **header), "logs")
        assert isinstance(principal, Principal)
        assert principal.key_id == key.pk
    # Revoking the last key does not open the door again.
    key.revoked_at = key.created_at
    key.save()
    assert refused(authorize(a_request(), "logs"), 401, "key_required")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_AUTHORIZATION": "Bearer ck_wrong"},
        {"HTTP_AUTHORIZATION": "Bearer"},
        {"HTTP_AUTHORIZATION": "Basic dXNlcjpwYXNz"},
        {"HTTP_AUTHORIZATION": ""},
        {"HTTP_X_API_KEY": ""},
        {"HTTP_X_API_KEY": "ck_wrong"},
    ],
)
def test_a_wrong_key_is_refused_even_where_none_is_needed(
    a_request: Request, headers: dict[str, str], require_key: Callable[[str], None]
) -> None:
    for policy in ("auto", "never"):
        require_key(policy)
        verdict = authorize(a_request(**headers), "logs")
        assert refused(verdict, 401, "invalid_key")
        assert isinstance(verdict, HttpResponse)
        assert verdict["WWW-Authenticate"].startswith("Bearer")
        assert b"ck_wrong" not in verdict.content


@pytest.mark.django_db
def test_a_scope_that_is_missing_is_named(a_request: Request) -> None:
    _, token = create_key(tenant="default", name="app", scopes=["logs"])
    request = a_request(HTTP_X_API_KEY=token)
    assert isinstance(authorize(request, "logs"), Principal)
    verdict = authorize(request, "events")
    assert refused(verdict, 403, "missing_scope")
    assert isinstance(verdict, HttpResponse)
    assert "'events'" in verdict.content.decode()


@pytest.mark.django_db
def test_policies(a_request: Request, require_key: Callable[[str], None]) -> None:
    require_key("always")
    assert refused(authorize(a_request(), "logs"), 401, "key_required")
    require_key("never")
    assert isinstance(authorize(a_request("10.0.0.1"), "logs"), Principal)


def test_while_the_keys_are_not_known_nobody_is_let_in(
    a_request: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def away() -> list[Any]:
        raise OperationalError("away")

    ring = KeyRing(rows=away)
    monkeypatch.setattr(access, "keyring", lambda: ring)
    for request in (a_request(), a_request(HTTP_AUTHORIZATION="Bearer ck_of_a_real_key")):
        verdict = authorize(request, "logs")
        assert refused(verdict, 503, "keys_unavailable")
        assert isinstance(verdict, HttpResponse)
        assert int(verdict["Retry-After"]) >= 1


@pytest.mark.django_db
def test_whoever_is_refused_is_told_how_to_send_a_key(a_request: Request) -> None:
    verdicts = [authorize(a_request("10.0.0.1"), "logs")]
    create_key(tenant="default", name="app", scopes=["logs"])
    verdicts.append(authorize(a_request(), "logs"))
    verdicts.append(authorize(a_request(HTTP_AUTHORIZATION="Basic dXNlcjpwYXNz"), "logs"))
    for verdict in verdicts:
        assert isinstance(verdict, HttpResponse)
        detail = json.loads(verdict.content)["detail"]
        assert 'send "Authorization: Bearer <key>"' in detail
        assert "in the admin under API keys" in detail
