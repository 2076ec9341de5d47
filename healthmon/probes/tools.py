"""What every probe is given: names, the address policy, TLS settings, limits, the clock.

One of each per checker process, used on its event loop alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from healthmon.probes.net.policy import AddressPolicy
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
