"""Arms health monitoring: registers what its rooms offer; starts nothing."""

from __future__ import annotations

from django.apps import AppConfig


class HealthmonConfig(AppConfig):
    name = "healthmon"
    verbose_name = "Health monitoring"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from healthmon import arming

        arming.arm()
