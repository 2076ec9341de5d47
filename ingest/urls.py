"""The addresses of ingest; the server sends exactly these through its short middleware list."""

from __future__ import annotations

from django.urls import path

from ingest.api.views import CountersView, EventsView, HealthView, LogsView

urlpatterns = [
    path("logs", LogsView.as_view(), name="logs"),
    path("health", HealthView.as_view(), name="health"),
    path("event", EventsView.as_view(), name="event"),
    path("counters", CountersView.as_view(), name="counters"),
]
