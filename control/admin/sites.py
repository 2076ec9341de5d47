"""Collector's admin site: its index is the operations dashboard.

Runs in request threads; holds no state of its own.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path
from django.views.decorators.cache import never_cache


class CollectorAdminSite(admin.AdminSite):
    site_header = "Collector"
    site_title = "Collector"
    index_title = "Operations"
    site_url = ""
    index_template = "admin/dashboard/index.html"
    empty_value_display = "\N{EN DASH}"

    def get_urls(self) -> list[URLResolver | URLPattern]:
        own: list[URLResolver | URLPattern] = [
            path("dashboard/", self.admin_view(self.dashboard), name="dashboard")
        ]
        return own + super().get_urls()

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        from control.admin.dashboard import dashboard_context

        return super().index(request, {**dashboard_context(request), **(extra_context or {})})

    @never_cache
    def dashboard(self, request: HttpRequest) -> HttpResponse:
        """The panels alone, fetched again and again by the open dashboard."""
        from control.admin.dashboard import dashboard_context

        return TemplateResponse(request, "admin/dashboard/panels.html", dashboard_context(request))
