"""Collector's admin site: its index is the operations dashboard.

Runs in request threads; holds no state of its own.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

# Apps that are not named stand before the last two.
APP_ORDER = ("ingest", "sinks", "healthmon", "jobs", "control", "auth")


class CollectorAdminSite(admin.AdminSite):
    site_header = "Collector"
    site_title = "Collector"
    index_title = "Operations"
    site_url = ""
    index_template = "admin/dashboard/index.html"
    empty_value_display = "\N{EN DASH}"

    def get_urls(self) -> list[URLResolver | URLPattern]:
        own: list[URLResolver | URLPattern] = [
            path("dashboard/", self.dashboard_view, name="dashboard"),
            *self._log_urls(),
        ]
        return own + super().get_urls()

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        from control.admin.dashboard import dashboard_context

        return super().index(request, {**dashboard_context(request), **(extra_context or {})})

    def get_app_list(
        self, request: HttpRequest, app_label: str | None = None
    ) -> list[dict[str, Any]]:
        """What is looked at daily first, what is set up once last."""
        apps: list[dict[str, Any]] = super().get_app_list(request, app_label)
        for app in apps:
            if app["app_label"] == "control" and request.user.has_perm("control.view_process"):
                app["models"] = sorted([*app["models"], self._log_entry()], key=_entry_name)
        place = {label: index for index, label in enumerate(APP_ORDER)}
        return sorted(apps, key=lambda app: place.get(app["app_label"], len(APP_ORDER) - 2))

    def _log_urls(self) -> list[URLPattern]:
        from control.admin import logpages

        return [
            path("log/", self.admin_view(logpages.log), name="log"),
            path(
                "log/quarantine/<str:name>/",
                self.admin_view(logpages.quarantined),
                name="log_quarantined",
            ),
            path(
                "log/quarantine/<str:name>/delete/",
                self.admin_view(logpages.delete),
                name="log_quarantined_delete",
            ),
        ]

    def _log_entry(self) -> dict[str, Any]:
        """The page of logs among the models: it has none, and is looked for beside processes."""
        return {
            "name": "Log",
            "object_name": "Log",
            "model": None,
            "perms": {"add": False, "change": False, "delete": False, "view": True},
            "admin_url": reverse("admin:log", current_app=self.name),
            "add_url": None,
            "view_only": True,
        }

    def dashboard_view(self, request: HttpRequest) -> HttpResponse:
        """The panels alone, fetched again and again by the open dashboard."""
        if request.headers.get("HX-Request") and not self.has_permission(request):
            # A redirect would put the login page inside the panels.
            login = reverse("admin:login", current_app=self.name)
            index = reverse("admin:index", current_app=self.name)
            return HttpResponse(status=204, headers={"HX-Redirect": f"{login}?next={index}"})
        response: HttpResponse = self.admin_view(self.dashboard)(request)
        return response

    @method_decorator(never_cache)
    def dashboard(self, request: HttpRequest) -> HttpResponse:
        from control.admin.dashboard import dashboard_context

        return TemplateResponse(request, "admin/dashboard/panels.html", dashboard_context(request))


def _entry_name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).lower()
