"""The project as an app: system checks, and what the whole installation shares."""

from __future__ import annotations

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "collector_site"
    verbose_name = "Installation"

    def ready(self) -> None:
        from django.conf import settings

        from collector_site import checks  # noqa: F401  registers them
        from collector_site.logdirectory import LogDirectory
        from collector_site.tracing import TracingService
        from control.processes import lifecycle
        from control.web.permits import permits

        collector = settings.COLLECTOR
        permits.resize(collector.server.threads - collector.server.reserved_threads)
        lifecycle.register(LogDirectory())
        lifecycle.register(TracingService(settings=collector.tracing))
