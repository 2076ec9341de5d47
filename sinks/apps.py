"""The sinks app: arms its service, ports, metrics and checks; starts nothing."""

from __future__ import annotations

from django.apps import AppConfig


class SinksConfig(AppConfig):
    name = "sinks"
    verbose_name = "Sinks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from sinks import arming

        arming.arm()
