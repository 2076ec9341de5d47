"""What `AppConfig.ready()` registers: the service, its ports, the checks, the config section."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from control.processes import lifecycle
    from sinks import checks, problems  # noqa: F401 - importing registers the checks
    from sinks.service import current

    service = current()
    lifecycle.register(service)
    service.register_ports()
    problems.register()
