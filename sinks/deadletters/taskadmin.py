"""Redrives and the notes of decisions in the admin.

Whoever may see dead letters may see both; cancelling and resuming need the permission to decide
about letters.  Runs in request threads; holds no state.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from control.admin import KeysetModelAdmin, ReadOnlyMixin, ReadOnlyModelAdmin, display, register
from control.admin.inert import inert, one_line
from sinks.deadletters import decisions, tasks
from sinks.deadletters.models import DeadLetterAction, RedriveTask
from sinks.deadletters.selection import Selection

VIEW, DECIDE = "sinks.view_deadletter", "sinks.change_deadletter"
REFRESH_S = 2


class SeenWithLetters(ReadOnlyMixin):
    """Seen by whoever may see the letters."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user = request.user
        return bool(user.has_perm(VIEW) or user.has_perm(DECIDE))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)


@register(RedriveTask)
class RedriveTaskAdmin(SeenWithLetters, ReadOnlyModelAdmin):
    list_display = ("asked", "sink_name", "which", "asked_by", "progress", "state_word")
    list_display_links = ("asked",)
    list_filter = ("state",)
    show_full_result_count = False
    ordering = ("-created_at",)

    @display(description="Asked (UTC)", ordering="created_at")
    def asked(self, task: RedriveTask) -> str:
        return f"{task.created_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Letters")
    def which(self, task: RedriveTask) -> str:
        return one_line(task.said, limit=120)

    @display(description="Progress")
    def progress(self, task: RedriveTask) -> str:
        of = f" of {task.total:,}" if task.total is not None else ""
        refused = f", {task.refused:,} refused again" if task.refused else ""
        return f"{task.finished:,}{of}{refused}"

    @display(description="State")
    def state_word(self, task: RedriveTask) -> str:
        return "cancelling" if task.is_open and task.cancelling else task.state

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return self._show(request, object_id, "admin/sinks/redrivetask/detail.html")

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of the page that is fetched again and again while the task is open."""
        return self._show(request, object_id, "admin/sinks/redrivetask/progress.html")

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(task: RedriveTask, who: str, now: datetime) -> str:
            return tasks.cancel(task.pk, who=who, now=now)

        return self._act(request, object_id, act)

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(task: RedriveTask, who: str, now: datetime) -> str:
            tasks.resume(task.pk, who=who, now=now)
            return "It goes on."

        return self._act(request, object_id, act)

    def get_urls(self) -> list[URLPattern]:
        views = (
            ("progress", self.progress_view),
            ("cancel", self.cancel_view),
            ("resume", self.resume_view),
        )
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"sinks_redrivetask_{name}",
            )
            for name, view in views
        ]
        return [*own, *super().get_urls()]

    def _show(self, request: HttpRequest, object_id: str, template: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        task = self._task(request, object_id)
        of = task.total if task.total is not None else task.claimed
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Redrive to {task.sink_name}",
            "task": task,
            "words": inert(task.said),
            "note": inert(task.note),
            "state_word": self.state_word(task),
            "of": max(of, task.finished),
            "refresh_s": REFRESH_S,
            "may_decide": request.user.has_perm(DECIDE),
            "unowned": task.is_open and not task.owner,
            "actions": task.actions.order_by("pk")[:50],
        }
        return TemplateResponse(request, template, context)

    def _act(self, request: HttpRequest, object_id: str, act: Any) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not request.user.has_perm(DECIDE):
            raise PermissionDenied
        task = self._task(request, object_id)
        try:
            said = act(task, request.user.get_username(), datetime.now(UTC))
        except decisions.Refused as refused:
            messages.error(request, str(refused))
        else:
            messages.success(request, said)
        return HttpResponseRedirect(reverse("admin:sinks_redrivetask_change", args=[task.pk]))

    def _task(self, request: HttpRequest, object_id: str) -> RedriveTask:
        task: RedriveTask | None = self.get_object(request, unquote(object_id))
        if task is None:
            raise Http404("There is no such redrive.")
        return task


@register(DeadLetterAction)
class DeadLetterActionAdmin(SeenWithLetters, KeysetModelAdmin):
    list_display = ("when", "who", "kind", "sink_name", "which", "count", "why")
    list_display_links = None
    actions = None

    @display(description="When (UTC)")
    def when(self, one: DeadLetterAction) -> str:
        return f"{one.at:%Y-%m-%d %H:%M:%S}"

    @display(description="Letters")
    def which(self, one: DeadLetterAction) -> str:
        if not one.selection:
            return self.get_empty_value_display()
        return one_line(Selection.from_json(one.selection).words(), limit=200)

    @display(description="Why")
    def why(self, one: DeadLetterAction) -> str:
        return one_line(one.reason, limit=300)
