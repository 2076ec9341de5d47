"""A job type, its steps and the services they call, as runners and the API hold them.

Made from the rows by `jobs.types.catalogue`, never changed: a changed row makes a new one.  Secrets
are as stored (encrypted or `env:NAME`) until `DownstreamSpec.plain_headers` is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.types.models import CONSECUTIVE, OFF, DownstreamService, JobType, TypeStep
from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.retry import RetryPolicy
from sinks.secrets import decrypt, is_reference, resolve

NEVER = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamSpec:
    """See `jobs.types.models.DownstreamService` for the fields."""

    id: int
    name: str
    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    expected_status: str = "200-299"
    max_response_bytes: int = 1024 * 1024
    follow_redirects: bool = False
    verify_tls: bool = True
    rate_per_s: float | None = None
    burst: int | None = None
    max_concurrent: int | None = None
    breaker: BreakerSettings = field(default_factory=BreakerSettings)

    def plain_secrets(self) -> dict[str, str]:
        """The secret headers in plain.  Raises `sinks.secrets.SecretError`."""
        plain = {}
        for name, stored in self.secret_headers.items():
            where = f"{self.name}: {name}"
            if is_reference(stored):
                plain[name] = resolve(stored, option=where)
            else:
                plain[name] = decrypt(stored, option=where)
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One step.  `downstream` is None for a handler."""

    name: str
    stage: int = 1
    downstream: DownstreamSpec | None = None
    method: str = "POST"
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    expected_status: str = ""
    timeout_s: float | None = None
    handler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeSpec:
    """See `jobs.types.models.JobType` for the fields."""

    id: int
    name: str
    enabled: bool = True
    payload_schema: Mapping[str, Any] = field(default_factory=dict)
    aggregation: str = "all"
    quorum: int | None = None
    default_priority: int = 5
    max_attempts: int = 8
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(base_s=1.0, cap_s=60.0))
    deadline_s: float = 3600.0
    max_concurrent: int | None = None
    rate_per_s: float | None = None
    burst: int | None = None
    webhook_url: str = ""
    webhook_secret: str = field(default="", repr=False)
    job_webhooks: bool = True
    steps: tuple[StepSpec, ...] = ()


def downstream_spec(row: DownstreamService) -> DownstreamSpec:
    """Raises ValueError where the row was written past its checks."""
    by_ratio = row.breaker_rule != CONSECUTIVE
    breaker = BreakerSettings(
        enabled=row.breaker_rule != OFF,
        # Either rule, one on: the other's threshold is out of reach.
        consecutive=NEVER if by_ratio else row.breaker_consecutive,
        failure_ratio=row.breaker_ratio,
        min_calls=row.breaker_min_calls if by_ratio else NEVER,
        window_s=row.breaker_window_s,
        open_s=row.breaker_open_s,
        half_open_probes=row.breaker_probes,
    )
    return DownstreamSpec(
        id=row.pk,
        name=row.name,
        base_url=row.base_url,
        headers=dict(row.headers),
        secret_headers=dict(row.secret_headers),
        timeout_s=row.timeout_s,
        expected_status=row.expected_status,
        max_response_bytes=row.max_response_bytes,
        follow_redirects=row.follow_redirects,
        verify_tls=row.verify_tls,
        rate_per_s=row.rate_per_s,
        burst=row.burst,
        max_concurrent=row.max_concurrent,
        breaker=breaker,
    )


def step_spec(row: TypeStep, downstreams: Mapping[int, DownstreamSpec]) -> StepSpec:
    """Raises KeyError where its downstream service is unknown."""
    return StepSpec(
        name=row.name,
        stage=row.stage,
        downstream=None if row.downstream_id is None else downstreams[row.downstream_id],
        method=row.method,
        path=row.path,
        headers=dict(row.headers),
        body=row.body,
        expected_status=row.expected_status,
        timeout_s=row.timeout_s,
        handler=row.handler,
    )


def type_spec(row: JobType, steps: tuple[StepSpec, ...]) -> TypeSpec:
    """Raises ValueError where the row was written past its checks."""
    return TypeSpec(
        id=row.pk,
        name=row.name,
        enabled=row.enabled,
        payload_schema=dict(row.payload_schema or {}),
        aggregation=row.aggregation,
        quorum=row.quorum,
        default_priority=row.default_priority,
        max_attempts=row.max_attempts,
        retry=RetryPolicy(base_s=row.backoff_base_s, cap_s=row.backoff_cap_s),
        deadline_s=row.deadline_s,
        max_concurrent=row.max_concurrent,
        rate_per_s=row.rate_per_s,
        burst=row.burst,
        webhook_url=row.webhook_url,
        webhook_secret=row.webhook_secret,
        job_webhooks=row.job_webhooks,
        steps=steps,
    )
