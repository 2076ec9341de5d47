"""Deliveries by hand, for the kinds of channels."""

from __future__ import annotations

from typing import Any

from control.outbound.connecting import Outbound
from control.outbound.policy import AddressPolicy
from healthmon.notify.kind import ChannelKind, Delivery, Event, Notification
from sinks.options import decode_options

NOW_S = 1_790_000_000
HOSTILE = 'a "quoted"\r\nBcc: victim@example.com\n<script>alert(1)</script> <!channel> $target {x}'


def event(target: str = "api", **changes: Any) -> Event:
    fields: dict[str, Any] = {
        "key": "7:1:i3:down",
        "event": "down",
        "target": target,
        "target_id": 1,
        "status": "down",
        "previous": "up",
        "severity": "critical",
        "reason": "connection refused",
        "at": "2026-11-22T04:00:00.000Z",
        "incident_id": 3,
        "path": "/admin/healthmon/incident/3/change/",
    }
    return Event(**{**fields, **changes})


def told(*events: Event, **changes: Any) -> Notification:
    named = list(events) or [event()]
    fields: dict[str, Any] = {
        "title": f"DOWN: {named[0].target}",
        "events": named,
        "count": len(named),
        "counts": {"down": len(named)},
        "rule": "everything",
    }
    return Notification(**{**fields, **changes})


def delivery(
    kind: ChannelKind,
    options: dict[str, Any],
    notification: Notification | None = None,
    *,
    key: str = "7:1:i3:down",
    deadline_s: float = 10.0,
    loopback_bound: bool = True,
) -> Delivery:
    return Delivery(
        key=key,
        notification=notification or told(),
        channel="ops",
        options=decode_options(kind.Options, options),
        outbound=Outbound(
            policy=AddressPolicy(loopback_bound=loopback_bound), deadline_s=deadline_s
        ),
        now_s=NOW_S,
    )
