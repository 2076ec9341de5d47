"""System checks of probing: the kinds and networks that the settings name can be used."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from control.outbound.policy import PolicyError
from healthmon.probes import registry
from healthmon.probes.net.policy import policy_from_settings


@register
def check_probe_kinds(**_: Any) -> list[CheckMessage]:
    """Every kind of probe that the settings add is importable."""
    return [
        Error(
            f"A kind of probe cannot be used: {problem}",
            hint="Correct monitoring.probe_kinds (COLLECTOR_PROBE_KINDS), or install the package "
            "that has it.",
            id="healthmon.E010",
        )
        for problem in registry.problems()
    ]


@register
def check_networks(**_: Any) -> list[CheckMessage]:
    """The networks that may and may not be probed are networks."""
    try:
        policy_from_settings()
    except PolicyError as error:
        return [
            Error(
                str(error),
                hint="Write networks as CIDR, such as 10.0.0.0/8, in monitoring.probe_allow and "
                "probe_deny (COLLECTOR_PROBE_ALLOW, COLLECTOR_PROBE_DENY).",
                id="healthmon.E011",
            )
        ]
    return []
