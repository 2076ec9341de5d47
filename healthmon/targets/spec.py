"""What a checker knows of a target: its row, decoded once, without secrets in its repr.

Made on the loader's thread, read on the event loop, never changed.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, field

from healthmon.probes.kind import ProbeKind, Request
from healthmon.probes.registry import KindError
from healthmon.targets.models import Target, slot_of
from healthmon.targets.options import decoded
from healthmon.truth.machine import Rules
from sinks.options import OptionsError
from sinks.secrets import SecretError


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """`broken` says why the target cannot be probed, "" when it can."""

    id: int
    name: str
    slot: int
    kind_name: str
    kind: ProbeKind | None
    request: Request | None = field(repr=False)
    host: str
    group: int
    tags: frozenset[int]
    interval_s: float
    retry_interval_s: float
    timeout_s: float
    degraded_after_ms: float | None
    rules: Rules
    paused: bool
    run_requested_us: int
    fingerprint: int
    broken: str = ""

    @property
    def passive(self) -> bool:
        """Judged by what comes in, not by probing."""
        return self.kind is not None and self.kind.probe is None


def spec_of(target: Target, *, tags: frozenset[int] = frozenset()) -> TargetSpec:
    """Decode a row; never raises for what it says."""
    kind: ProbeKind | None = None
    request: Request | None = None
    host, broken = "", ""
    try:
        kind, options = decoded(target)
        broken = kind.address_problem(target.address) or _times_problem(target)
        if not broken:
            request = Request(
                address=target.address,
                options=options,
                timeout_s=target.timeout_s,
                target_id=target.pk,
            )
            host = kind.host(target.address)
    except (KindError, OptionsError, SecretError) as error:
        broken = str(error)
    except Exception as error:  # a third party's kind may fail in any way
        broken = f"{type(error).__name__} while its options were read"
    asked = target.run_requested_at
    return TargetSpec(
        id=target.pk,
        name=target.name,
        slot=slot_of(target.pk),
        kind_name=target.kind,
        kind=kind,
        request=request,
        host=host,
        group=target.group_id or 0,
        tags=tags,
        interval_s=target.interval_s,
        retry_interval_s=min(target.retry_interval_s, target.interval_s),
        timeout_s=target.timeout_s,
        degraded_after_ms=target.degraded_after_ms,
        rules=_rules(target, kind),
        paused=target.paused,
        run_requested_us=round(asked.timestamp() * 1e6) if asked is not None else 0,
        fingerprint=_probed_as(target),
        broken=broken,
    )


def _rules(target: Target, kind: ProbeKind | None) -> Rules:
    if kind is not None and kind.probe is None:
        # A ping says how it went, and one that is missing had its grace: nothing to confirm.
        return Rules(failure_threshold=1, success_threshold=1)
    return Rules(
        failure_threshold=target.failure_threshold,
        success_threshold=target.success_threshold,
    )


def _probed_as(target: Target) -> int:
    """Changes when a result would mean something else than before."""
    asked = [target.kind, target.address, target.options, target.secrets]
    return zlib.crc32(json.dumps(asked, sort_keys=True).encode())


def _times_problem(target: Target) -> str:
    """A row may be written past every check; what is no time would upset the whole schedule."""
    for name in ("interval_s", "retry_interval_s", "timeout_s"):
        value = getattr(target, name)
        if not (math.isfinite(value) and value > 0):
            return f"{name} is {value}: it must be a number of seconds above 0"
    return ""
