"""The project as an app: system checks and the commands that belong to the installation."""

from __future__ import annotations

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "collector_site"
    verbose_name = "Installation"

    def ready(self) -> None:
        from django.conf import settings

        from collector_site import checks  # noqa: F401  registers them
        from control.web.permits import permits

        server = settings.COLLECTOR.server
        permits.resize(server.threads - server.reserved_threads)
