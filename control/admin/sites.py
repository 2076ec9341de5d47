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
            path("live/", self.live_view, name="live"),
            path("live/panels/", self.live_panels_view, name="live_panels"),
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
                pages = [self._entry("Live", "admin:live"), self._entry("Log", "admin:log")]
                app["models"] = sorted([*app["models"], *pages], key=_entry_name)
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

    def _entry(self, name: str, page: str) -> dict[str, Any]:
        """A page among the models: it has none, and is looked for beside processes."""
        return {
            "name": name,
            "object_name": name,
            "model": None,
            "perms": {"add": False, "change": False, "delete": False, "view": True},
            "admin_url": reverse(page, current_app=self.name),
            "add_url": None,
            "view_only": True,
        }

    def dashboard_view(self, request: HttpRequest) -> HttpResponse:
        """The panels alone, fetched again and again by the open dashboard."""
        if (to_login := self.to_login(request, "admin:index")) is not None:
            return to_login
        response: HttpResponse = self.admin_view(self.dashboard)(request)
        return response

    def live_view(self, request: HttpRequest) -> HttpResponse:
        from control.admin import live

        response: HttpResponse = self.admin_view(live.page)(request)
        return response

    def live_panels_view(self, request: HttpRequest) -> HttpResponse:
        from control.admin import live

        if (to_login := self.to_login(request, "admin:live")) is not None:
            return to_login
        response: HttpResponse = self.admin_view(live.panels)(request)
        return response

    def to_login(self, request: HttpRequest, page: str, *args: str) -> HttpResponse | None:
        """Where an open page goes whose session has ended.

        A redirect would put the login page inside the panels.
        """
        if not request.headers.get("HX-Request") or self.has_permission(request):
            return None
        login = reverse("admin:login", current_app=self.name)
        following = reverse(page, args=args, current_app=self.name)
        return HttpResponse(status=204, headers={"HX-Redirect": f"{login}?next={following}"})

    @method_decorator(never_cache)
    def dashboard(self, request: HttpRequest) -> HttpResponse:
        from control.admin.dashboard import dashboard_context

        return TemplateResponse(request, "admin/dashboard/panels.html", dashboard_context(request))


def _entry_name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).lower()
