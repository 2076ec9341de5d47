"""Every address the server answers."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from collector_site import probes
from control.web import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("stats", probes.stats, name="stats"),
    path("metrics", probes.metrics, name="metrics"),
    path("", include("ingest.urls")),
    path("", include("healthmon.urls")),
    path("", include("jobs.urls")),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
]

handler400 = "control.web.problem.bad_request"
handler403 = "control.web.problem.permission_denied"
handler404 = "control.web.problem.page_not_found"
handler500 = "collector_site.away.server_error"
