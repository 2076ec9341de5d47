"""The addresses of health monitoring."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path, register_converter

from healthmon.api import history, incidents, targets
from healthmon.api.probe import ProbeView
from healthmon.heartbeats.views import ping
from healthmon.pages import views as pages


class Id:
    """A row's id: what a database's bigint can hold."""

    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(Id, "id")

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/targets", targets.TargetsView.as_view()),
    path("api/targets/<id:pk>", targets.TargetView.as_view()),
    path("api/targets/<id:pk>/results", history.TargetResultsView.as_view()),
    path("api/targets/<id:pk>/flips", history.TargetFlipsView.as_view()),
    path("api/targets/<id:pk>/latency", history.TargetLatencyView.as_view()),
    path("api/results", history.ResultsView.as_view()),
    path("api/incidents", incidents.IncidentsView.as_view()),
    path("api/incidents/<id:pk>", incidents.IncidentView.as_view()),
    path("api/incidents/<id:pk>/acknowledge", incidents.AcknowledgeView.as_view()),
    path("api/incidents/<id:pk>/comment", incidents.CommentView.as_view()),
    path("probe", ProbeView.as_view(), name="probe"),
    path("status/<slug:slug>", pages.page, name="status_page"),
    path("status/<slug:slug>.json", pages.page_json, name="status_page_json"),
    path("status/<slug:slug>.rss", pages.page_rss, name="status_page_rss"),
    path("badge/<slug:slug>.svg", pages.badge_svg, name="badge"),
    path("ping/<path:rest>", ping, name="ping"),
]
