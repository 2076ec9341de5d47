"""Who may call: the bearer of an API key, or, while no key exists, this machine alone.

`authorize` runs once per request before the body is read, from memory, on the request's thread.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from control.auth.keys import ALL_SCOPES, Principal, keyring
from control.auth.models import DEFAULT_TENANT
from control.web.problem import CHALLENGE, problem
from control.web.requestid import request_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# Who has no key, where none is needed: this machine, for any tenant.
ANONYMOUS = Principal(key_id=None, tenant=DEFAULT_TENANT, scopes=ALL_SCOPES, any_tenant=True)

HOW_TO_SEND = (
    'send "Authorization: Bearer <key>" or "X-API-Key: <key>"; make a key in the admin under '
    "API keys, or with `manage.py apikey create`."
)

# Set by whatever stands between a client and this server; with one of them the peer is not the
# client.
_FORWARDED = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_REAL_IP",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_SSL",
    "HTTP_X_ORIGINAL_FORWARDED_FOR",
    "HTTP_X_CLIENT_IP",
    "HTTP_X_CLUSTER_CLIENT_IP",
    "HTTP_TRUE_CLIENT_IP",
    "HTTP_CF_CONNECTING_IP",
    "HTTP_VIA",
)


@lru_cache(maxsize=1024)
def _is_loopback_address(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def is_direct_loopback(request: HttpRequest) -> bool:
    """Whether the client itself, and no proxy for it, is on this machine.

    A unix socket has no peer address and counts as a proxy's.
    """
    meta = request.META
    if not _is_loopback_address(meta.get("REMOTE_ADDR", "")):
        return False
    return not any(name in meta for name in _FORWARDED)


def authorize(request: HttpRequest, *scopes: str) -> Principal | HttpResponse:
    """The request's principal, or the answer that refuses it; any one of the scopes suffices."""
    meta = request.META
    token = _token(meta)
    if token is None:
        return _without_key(request)
    ring = keyring()
    principal = ring.authenticate(token)
    if principal is None:
        if not ring.known:
            return _keys_unavailable(request)
        return _unauthenticated(
            request, f"The API key is unknown, expired or revoked: {HOW_TO_SEND}", "invalid_key"
        )
    if not any(scope in principal.scopes for scope in scopes):
        told = " or ".join(repr(scope) for scope in scopes)
        return problem(
            403,
            title="Forbidden",
            detail=f"This API key does not carry the scope {told}.",
            code="missing_scope",
            request_id=request_id_of(request),
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scopes[0]}"'},
        )
    return principal


def _token(meta: Mapping[str, str]) -> str | None:
    header = meta.get("HTTP_AUTHORIZATION")
    if header is not None:
        if header[:7].lower() == "bearer ":
            return header[7:].strip()
        # Basic credentials and the like are an attempt at a key, never "no key".
        return ""
    return meta.get("HTTP_X_API_KEY")


def _without_key(request: HttpRequest) -> Principal | HttpResponse:
    policy = settings.COLLECTOR.ingest.require_key
    if policy == "never":
        return ANONYMOUS
    if policy == "always":
        return _key_required(request)
    ring = keyring()
    if not ring.known:
        # Keys that were never read may exist all the same: only this machine is let in.
        if not (ring.first_start and is_direct_loopback(request)):
            return _keys_unavailable(request)
    elif not ring.empty:
        return _key_required(request)
    if not is_direct_loopback(request):
        return _unauthenticated(
            request,
            "An API key is required: none exists yet, so only direct connections from this "
            f"machine are served without one; {HOW_TO_SEND}",
            "key_required",
        )
    if not _sent_by_a_program(request):
        return problem(
            403,
            title="Forbidden",
            detail="Without an API key, requests made by other sites' pages are not served.",
            code="cross_site",
            request_id=request_id_of(request),
        )
    return ANONYMOUS


def _sent_by_a_program(request: HttpRequest) -> bool:
    """False for what another site's page in this machine's browser sends: that is loopback as well.

    A page whose own name was pointed at loopback is refused by the Host check of the middleware.
    """
    meta = request.META
    if meta.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
        return False
    origin = meta.get("HTTP_ORIGIN")
    if origin is None:
        return True
    host = origin.partition("://")[2]
    return bool(host != "" and host == meta.get("HTTP_HOST"))


def _keys_unavailable(request: HttpRequest) -> HttpResponse:
    return problem(
        503,
        title="Service Unavailable",
        detail="The API keys have not been read yet: the control database does not answer.",
        code="keys_unavailable",
        request_id=request_id_of(request),
        headers={"Retry-After": "2"},
    )


def _key_required(request: HttpRequest) -> HttpResponse:
    return _unauthenticated(request, f"An API key is required: {HOW_TO_SEND}", "key_required")


def _unauthenticated(request: HttpRequest, detail: str, code: str) -> HttpResponse:
    return problem(
        401,
        title="Unauthorized",
        detail=detail,
        code=code,
        request_id=request_id_of(request),
        headers={"WWW-Authenticate": CHALLENGE},
    )
