"""`/probe?target=&module=`: one probe now, told as metrics, as blackbox_exporter's is.

A module is a kind of probe with its defaults, or a target's name.  What has secrets is sent to its
own address only: whoever may ask for a probe may not have them sent elsewhere.  So many run at
once; each holds a request thread until its timeout at most.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from rest_framework import exceptions
from rest_framework.request import Request

from control.web.problem import problem
from control.web.requestid import request_id_of
from healthmon.api import schema
from healthmon.api.base import ApiView
from healthmon.probes.kind import DEGRADED, OK, ProbeKind, Result
from healthmon.probes.registry import KindError, kind_names, kind_of
from healthmon.targets.models import Target
from healthmon.targets.options import plain_options
from sinks.options import OptionsError, secret_names
from sinks.secrets import SecretError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT_S, SHORTEST_S, LONGEST_S = 10.0, 0.1, 60.0
# What a scraper needs to have the answer before its own timeout.
SCRAPE_MARGIN_S = 0.5
AT_ONCE = 8
MAX_ADDRESS_CHARS = 2_000

_lock = threading.Lock()
_running = 0


@schema.probe
class ProbeView(ApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {"GET": ("target", "module", "timeout")}

    def get(self, request: Request) -> HttpResponse:
        kind, address, options = _asked(request)
        timeout_s = _timeout(request)
        if not _enter():
            return problem(
                429,
                title="Too Many Requests",
                detail="As many probes as may run at once run already.",
                code="too_many_probes",
                request_id=request_id_of(request._request),
                headers={"Retry-After": "1"},
            )
        try:
            result = _run(kind, address, options, timeout_s)
        finally:
            _leave()
        return HttpResponse(exposition(result), content_type=CONTENT_TYPE)


def _enter() -> bool:
    global _running
    with _lock:
        # A small server keeps most of its threads for the rest.
        if _running >= min(AT_ONCE, max(1, settings.COLLECTOR.server.threads // 4)):
            return False
        _running += 1
        return True


def _leave() -> None:
    global _running
    with _lock:
        _running -= 1


def _run(kind: ProbeKind, address: str, options: dict[str, Any], timeout_s: float) -> Result:
    from healthmon.probes.trial import try_probe

    try:
        result: Result = try_probe(kind, address, options, timeout_s)
    except OptionsError as error:
        raise exceptions.ValidationError({"module": [str(error)]}) from None
    return result


def _asked(request: Request) -> tuple[ProbeKind, str, dict[str, Any]]:
    """What to probe and how.  Raises ValidationError."""
    address = request.query_params.get("target", "")
    module = request.query_params.get("module", "http")
    if len(address) > MAX_ADDRESS_CHARS or len(module) > MAX_ADDRESS_CHARS:
        raise exceptions.ValidationError({"target": ["too long"]})
    row = None
    try:
        kind = kind_of(module)
    except KindError:
        row = Target.objects.filter(name=module).first()
        if row is None:
            known = ", ".join(name for name, kind in kind_names() if kind.probe is not None)
            raise exceptions.ValidationError(
                {"module": [f"neither a kind of probe ({known}) nor a target's name"]}
            ) from None
        kind, address, options = _of_target(row, address)
    else:
        options = {}
    if kind.probe is None:
        raise exceptions.ValidationError(
            {"module": [f"{kind.label} is not probed: it is told of by pings"]}
        )
    if not address and row is None:
        raise exceptions.ValidationError({"target": ["say what to probe"]})
    wrong = kind.address_problem(address)
    if wrong:
        raise exceptions.ValidationError({"target": [wrong]})
    return kind, address, options


def _of_target(row: Target, address: str) -> tuple[ProbeKind, str, dict[str, Any]]:
    try:
        kind = kind_of(row.kind)
        options = plain_options(row)
    except (KindError, SecretError) as error:
        raise exceptions.ValidationError({"module": [str(error)]}) from None
    if address in ("", row.name, row.address):
        return kind, row.address, options
    if secret_names(kind.Options) & options.keys():
        raise exceptions.ValidationError(
            {"target": ["this module has secrets, which go to its own address only: leave it out"]}
        )
    return kind, address, options


def _timeout(request: Request) -> float:
    text = request.query_params.get("timeout")
    margin = 0.0
    if text is None:
        text = request.META.get("HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS")
        margin = SCRAPE_MARGIN_S
    if text is None:
        return TIMEOUT_S
    try:
        seconds = float(text) - margin
    except ValueError:
        seconds = -1.0
    if margin:
        return min(max(seconds, SHORTEST_S), LONGEST_S) if seconds == seconds else TIMEOUT_S
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise exceptions.ValidationError(
            {"timeout": [f"seconds from {SHORTEST_S:g} to {LONGEST_S:g}"]}
        )
    return seconds


def exposition(result: Result) -> str:
    """The result as a scraper reads it; what the probe did not have is left out."""
    lines: list[str] = []

    def gauge(name: str, text: str, *samples: tuple[str, float]) -> None:
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} gauge")
        lines.extend(f"{name}{labels} {value!r}" for labels, value in samples)

    gauge(
        "probe_success",
        "Whether the probe succeeded.",
        ("", 1 if result.outcome in (OK, DEGRADED) else 0),
    )
    gauge("probe_duration_seconds", "How long the probe took.", ("", _seconds(result.total_ms)))
    if result.outcome == DEGRADED:
        gauge("probe_degraded", "1 while it answers, slower than it should.", ("", 1))
    if result.dns_ms >= 0:
        gauge(
            "probe_dns_lookup_time_seconds",
            "How long the name took to resolve.",
            ("", _seconds(result.dns_ms)),
        )
    if result.code:
        gauge("probe_http_status_code", "What the server answered with.", ("", result.code))
    phases = [
        (f'{{phase="{phase}"}}', _seconds(ms))
        for phase, ms in (
            ("resolve", result.dns_ms),
            ("connect", result.connect_ms),
            ("tls", result.tls_ms),
            ("processing", result.first_byte_ms),
        )
        if ms >= 0
    ]
    if phases:
        gauge("probe_phase_duration_seconds", "How long each phase took.", *phases)
        if result.code:
            gauge("probe_http_duration_seconds", "How long each phase took.", *phases)
    if result.address:
        gauge(
            "probe_ip_protocol",
            "The version of the address connected to.",
            ("", 6 if ":" in result.address.strip("[]").partition("]")[0] else 4),
        )
    if result.cert_expires_us:
        gauge(
            "probe_ssl_earliest_cert_expiry",
            "When the certificate expires, in Unix time.",
            ("", result.cert_expires_us / 1e6),
        )
    return "\n".join(lines) + "\n"


def _seconds(ms: float) -> float:
    return round(ms / 1000, 9)
