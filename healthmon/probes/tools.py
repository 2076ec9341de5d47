"""What every probe is given: names, the address policy, TLS settings, limits, the clock.

One of each per checker process, used on its event loop alone; policy and TLS settings may also be
shared by several threads, each with a resolver of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from control.outbound.policy import AddressPolicy
from healthmon.probes.net.policy import policy_from_settings
from healthmon.probes.net.resolver import Resolver
from healthmon.probes.net.tls import Contexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    resolver: Resolver
    policy: AddressPolicy
    contexts: Contexts
    max_body_bytes: int = 256 * 1024
    monotonic: Callable[[], float] = time.perf_counter
    user_agent: str = "Collector"


def tools_from_settings() -> Tools:
    """The tools of this installation, new ones.  Raises PolicyError."""
    from django.conf import settings

    return Tools(
        resolver=Resolver(),
        policy=policy_from_settings(),
        contexts=Contexts(),
        max_body_bytes=settings.COLLECTOR.monitoring.probe_max_body_bytes,
    )
