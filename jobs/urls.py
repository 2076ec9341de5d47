"""The addresses of jobs; the server sends them through its short middleware list."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from jobs.api import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("jobs", views.JobsView.as_view(), name="jobs"),
    path("jobs/<uuid:id>", views.JobView.as_view(), name="job"),
    path("jobs/<uuid:id>/cancel", views.CancelView.as_view(), name="job_cancel"),
    path("jobs/<uuid:id>/retry", views.RetryView.as_view(), name="job_retry"),
]
