"""Processes, their workers' lives, and what they were asked: read-only.

A process that has ended stays in the list with its reason and its last figures, until retention
removes it. Runs in request threads; holds no state.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import (
    FilterForm,
    KeysetModelAdmin,
    ReadOnlyMixin,
    ReadOnlyModelAdmin,
    display,
    register,
)
from control.admin.figures import ago, duration
from control.admin.jsonview import json_html
from control.admin.ledger import ledger_views
from control.admin.overview import process_state
from control.admin.pipelines import PipelineView, stats_pipelines
from control.models import Process, ProcessRequest, WorkerRun

_DOTS = {"alive": "good", "stopped": "idle", "lost": "bad"}
WORKERS_SHOWN = 50
REQUESTS_SHOWN = 20


def state_html(process: Process) -> SafeString:
    state = process_state(process, timezone.now())
    return format_html('<span class="dot dot-{}" aria-hidden="true"></span>{}', _DOTS[state], state)


@register(Process)
class ProcessAdmin(ReadOnlyModelAdmin):
    list_display = ("name", "state", "host", "pid", "version", "started_at", "last_seen", "reason")
    list_filter = ("role",)
    search_fields = ("host", "role", "log_id", "exit_reason")
    ordering = ("-last_seen_at",)
    change_form_template = "admin/control/process_detail.html"

    @display(description="Process", ordering="role")
    def name(self, process: Process) -> str:
        return process.role

    @display(description="State")
    def state(self, process: Process) -> SafeString:
        return state_html(process)

    @display(description="Last seen", ordering="last_seen_at")
    def last_seen(self, process: Process) -> str:
        return ago(process.last_seen_at, timezone.now())

    @display(description="Reason", ordering="exit_reason")
    def reason(self, process: Process) -> str:
        if not process.exit_reason and process_state(process, timezone.now()) == "lost":
            return "fell silent without saying why"
        return process.exit_reason

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> Any:
        process = context.get("original")
        if process is not None:
            context.update(process_context(process))
        return super().render_change_form(request, context, *args, **kwargs)


def process_context(process: Process) -> dict[str, Any]:
    """What the process page shows: figures, ledger by tenant, workers, requests."""
    pipelines = []
    names = {}
    for data in stats_pipelines(process.stats):
        view = PipelineView(key=str(data.get("key")), name=str(data.get("name") or data.get("key")))
        view.add(data)
        names[view.key] = view.name
        pipelines.append(view)
    rows = process.ledger if isinstance(process.ledger, list) else []
    workers = list(process.worker_runs.order_by("-started_at", "-id")[: WORKERS_SHOWN + 1])
    return {
        "process": process,
        "title": str(process),
        "subtitle": None,
        "now": timezone.now(),
        "state": process_state(process, timezone.now()),
        "pipelines": pipelines,
        "ledger": ledger_views(rows, names),
        "workers": workers[:WORKERS_SHOWN],
        "more_workers": len(workers) > WORKERS_SHOWN,
        "requests": list(process.requests.order_by("-created_at", "-id")[:REQUESTS_SHOWN]),
    }


class WorkerRunFilter(FilterForm):
    pipeline = forms.CharField(required=False, max_length=200, strip=True)
    process = forms.UUIDField(required=False, widget=forms.HiddenInput)
    failed = forms.BooleanField(required=False, label="With failures")

    def apply(self, queryset: QuerySet[WorkerRun]) -> QuerySet[WorkerRun]:
        data = self.cleaned_data
        if data["pipeline"]:
            queryset = queryset.filter(pipeline__icontains=data["pipeline"])
        if data["process"]:
            queryset = queryset.filter(process=data["process"])
        if data["failed"]:
            queryset = queryset.filter(failures__gt=0)
        return queryset

    def empty_text(self) -> str:
        return "No worker has run yet, or none matches. Workers appear with the first batch."


@register(WorkerRun)
class WorkerRunAdmin(ReadOnlyMixin, KeysetModelAdmin):
    filter_form_class = WorkerRunFilter
    list_display = (
        "worker",
        "pipeline",
        "process_name",
        "started_at",
        "lived",
        "records",
        "batches",
        "failures",
    )
    list_select_related = ("process",)
    actions = None

    @display(description="Process")
    def process_name(self, run: WorkerRun) -> str:
        return str(run.process)

    @display(description="Lived")
    def lived(self, run: WorkerRun) -> str:
        if run.ended_at is not None:
            return duration((run.ended_at - run.started_at).total_seconds())
        if process_state(run.process, timezone.now()) == "alive":
            return f"{duration((timezone.now() - run.started_at).total_seconds())}, still runs"
        return "ended with its process"


@register(ProcessRequest)
class ProcessRequestAdmin(ReadOnlyMixin, KeysetModelAdmin):
    list_display = ("kind", "process", "created_at", "claimed_at", "finished_at")
    list_select_related = ("process",)
    actions = None
    fields = ("kind", "process", "created_at", "claimed_at", "finished_at", "arguments", "outcome")
    readonly_fields = ("arguments", "outcome")

    @display(description="Arguments")
    def arguments(self, request: ProcessRequest) -> SafeString:
        return json_html(request.args)

    @display(description="Result")
    def outcome(self, request: ProcessRequest) -> SafeString:
        return json_html(request.result)
