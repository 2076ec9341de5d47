"""From a service's configuration and a step's request to what is sent.  Pure.

What is wrong with the configuration only an edit mends: the call is delayed, which spends no
attempt.  What is wrong with the request is the job's own: it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx

from jobs.downstream import statuses
from jobs.downstream.addresses import (
    RESERVED,
    base_url_problem,
    header_problem,
    headers_problem,
    path_problem,
)
from jobs.downstream.faults import Delayed, RefusedCall
from jobs.downstream.secrecy import values_to_hide
from jobs.types.spec import DownstreamSpec
from sinks.secrets import SecretError

UNUSABLE_RETRY_S = 60.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """One call: `path` is rendered, begins with "/", and may have a query.

    `expected_status` and `timeout_s` are the step's; where they say nothing, the service's stand.
    `asker` names the step and its type: "step face of ekyc-verification".
    """

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    expected_status: str = ""
    timeout_s: float | None = None
    asker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    method: str
    url: httpx.URL
    headers: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    body: bytes | None
    expected: frozenset[int]
    timeout_s: float
    hidden: tuple[str, ...] = field(repr=False)


def prepared(spec: DownstreamSpec, request: CallRequest) -> Prepared:
    """Raises Delayed, RefusedCall."""
    base = base_url_problem(spec.base_url)
    if base:
        raise _unusable(spec, f"its base URL {base}")
    try:
        expected = statuses.expected(request.expected_status or spec.expected_status)
    except ValueError as error:
        raise _unusable(spec, f"its expected statuses: {error}") from None
    try:
        secrets = spec.plain_secrets()
    except SecretError as error:
        raise _unusable(spec, str(error)) from None
    for what, headers in (("header", spec.headers), ("secret header", secrets)):
        problem = headers_problem(headers)
        if problem:
            raise _unusable(spec, f"its {what} {problem}")
    for name, value in request.headers.items():
        problem = header_problem(name, value)
        if problem:
            raise RefusedCall(f"{spec.name} was not called: the header {problem}")
    wrong = path_problem(request.path)
    if wrong:
        raise RefusedCall(f"{spec.name} was not called: the path {request.path!r:.200} {wrong}")
    if request.method not in METHODS:
        raise RefusedCall(f"{spec.name} was not called: {request.method!r:.20} is no method of it")
    return Prepared(
        method=request.method,
        url=_url(spec, request.path),
        headers=_headers(spec, request, secrets),
        secrets=secrets,
        body=request.body,
        expected=expected,
        timeout_s=request.timeout_s or spec.timeout_s,
        hidden=values_to_hide(secrets.values()),
    )


def _unusable(spec: DownstreamSpec, why: str) -> Delayed:
    return Delayed(UNUSABLE_RETRY_S, f"{spec.name} cannot be called as it is configured: {why}")


def _url(spec: DownstreamSpec, path: str) -> httpx.URL:
    base = httpx.URL(spec.base_url)
    try:
        url = httpx.URL(spec.base_url.rstrip("/") + path)
    except httpx.InvalidURL as error:
        raise RefusedCall(f"{spec.name} was not called: its address is no URL: {error}") from None
    if (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
        raise RefusedCall(f"{spec.name} was not called: {path!r:.200} leads to another host")
    return url


def _headers(spec: DownstreamSpec, request: CallRequest, secrets: dict[str, str]) -> dict[str, str]:
    """Without the secrets, which only the service itself gets and nothing overrides."""
    found: dict[str, tuple[str, str]] = {}
    if request.body is not None:
        found["content-type"] = ("Content-Type", request.content_type)
    for headers in (spec.headers, request.headers):
        found.update((name.lower(), (name, value)) for name, value in headers.items())
    taken = RESERVED | {name.lower() for name in secrets}
    return {name: value for lower, (name, value) in found.items() if lower not in taken}
