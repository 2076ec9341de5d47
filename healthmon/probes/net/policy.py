"""Which addresses may be probed: the address policy of this installation's settings."""

from __future__ import annotations

from control.outbound.policy import AddressPolicy, Words

PROBING = Words(done="probed", allow="COLLECTOR_PROBE_ALLOW", deny="COLLECTOR_PROBE_DENY")


def policy_from_settings() -> AddressPolicy:
    """The policy of this installation.  Raises PolicyError."""
    from django.conf import settings

    collector = settings.COLLECTOR
    return AddressPolicy(
        allow=collector.monitoring.probe_allow,
        deny=collector.monitoring.probe_deny,
        loopback_bound=collector.server.loopback,
        words=PROBING,
    )
