"""The control app: registers its services and listens for changed keys; starts nothing."""

from __future__ import annotations

from django.apps import AppConfig


class ControlConfig(AppConfig):
    name = "control"
    verbose_name = "Control"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from control.auth import changes
        from control.auth.service import KeyService
        from control.idempotency import service as idempotency
        from control.outbox import metrics as outbox_metrics
        from control.outbox import service as outbox
        from control.processes import lifecycle
        from control.processes.service import HeartService

        changes.connect()
        lifecycle.register(HeartService())
        lifecycle.register(KeyService())
        lifecycle.register(idempotency.current())
        idempotency.current().register_ports()
        outbox_metrics.metrics()
        lifecycle.register(outbox.current())
