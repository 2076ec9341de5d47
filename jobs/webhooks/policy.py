"""Which addresses webhooks may go to: one policy, made once from the settings.

A bad network in the settings is a failed system check; here it raises PolicyError.
"""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from control.outbound.policy import AddressPolicy, Words

WORDS = Words(done="called", allow="COLLECTOR_JOBS_ALLOW", deny="COLLECTOR_JOBS_DENY")


def policy() -> AddressPolicy:
    """Raises PolicyError."""
    collector = settings.COLLECTOR
    return _made(collector.jobs.allow, collector.jobs.deny, collector.server.loopback)


@lru_cache(maxsize=4)
def _made(allow: tuple[str, ...], deny: tuple[str, ...], loopback_bound: bool) -> AddressPolicy:
    return AddressPolicy(allow=allow, deny=deny, loopback_bound=loopback_bound, words=WORDS)
