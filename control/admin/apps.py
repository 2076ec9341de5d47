"""The app config that makes Collector's admin site the default one."""

from __future__ import annotations

from importlib import import_module

from django.contrib.admin.apps import AdminConfig


class CollectorAdminConfig(AdminConfig):
    default_site = "control.admin.sites.CollectorAdminSite"

    def ready(self) -> None:
        # Autodiscovery imports `control.admin`, which is this package and already loaded, so the
        # registrations for control's own models are named here.
        import_module("control.admin.models")
        super().ready()
        # Imported late: panels reach models.
        import_module("control.admin.dashboard").register_panels()
