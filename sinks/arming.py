"""What `AppConfig.ready()` registers: the service, its ports, the checks, the config section."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from control.config.export import register_section
    from control.processes import lifecycle
    from sinks import changes, checks, conservation, problems  # noqa: F401 - registers the checks
    from sinks.configsection import SinkSection
    from sinks.deadletters import problems as dead_letter_problems
    from sinks.deadletters.metrics import metrics as dead_letter_metrics
    from sinks.deadletters.service import current_service as dead_letters
    from sinks.finished import finished_logs
    from sinks.metrics import metrics
    from sinks.service import current

    metrics()
    dead_letter_metrics()
    register_section(SinkSection())
    for service in (current(), conservation.current()):
        lifecycle.register(service)
        service.register_ports()
    lifecycle.register(dead_letters())
    finished_logs().register()
    problems.register()
    changes.register()
    dead_letter_problems.register()
