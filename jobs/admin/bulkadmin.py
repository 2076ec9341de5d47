"""Bulk actions in the admin: who asked for what, how far it is, and stopping it.

Seen by whoever may see jobs; stopping needs what asking needs.  Runs in request threads.
"""

from __future__ import annotations

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
from django.utils import timezone

from control.admin import ReadOnlyModelAdmin, display, register
from control.admin.inert import inert, one_line
from jobs.admin.problems import jobs_url
from jobs.bulk import tasks
from jobs.bulk.models import REPRIORITISE, BulkAction
from jobs.bulk.selection import Selection

VIEW, CHANGE = "jobs.view_job", "jobs.change_job"
REFRESH_S = 2


@register(BulkAction)
class BulkActionAdmin(ReadOnlyModelAdmin):
    list_display = ("asked", "what", "which", "asked_by", "progress", "state_word")
    list_display_links = ("asked",)
    list_select_related = ("asked_by",)
    show_full_result_count = False
    ordering = ("-pk",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(VIEW) or request.user.has_perm(CHANGE))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    @display(description="Asked (UTC)", ordering="pk")
    def asked(self, row: BulkAction) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Action")
    def what(self, row: BulkAction) -> str:
        to = f" to {row.args.get('priority')}" if row.action == REPRIORITISE else ""
        return f"{row.action}{to}"

    @display(description="Jobs")
    def which(self, row: BulkAction) -> str:
        return one_line(_words(row), limit=160)

    @display(description="Progress")
    def progress(self, row: BulkAction) -> str:
        of = f" of {row.expected:,}" if row.expected is not None else ""
        return f"{row.looked_at:,}{of}, {row.changed:,} changed"

    @display(description="State")
    def state_word(self, row: BulkAction) -> str:
        if row.finished_at is not None:
            return "failed" if row.error else "stopped" if row.stopped else "done"
        if row.stopped:
            return "stopping"
        return "under way" if row.owner else "waits"

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path(
                "<int:object_id>/progress/", wrap(self.progress_view),
                name="jobs_bulkaction_progress",
            ),
            path("<int:object_id>/stop/", wrap(self.stop_view), name="jobs_bulkaction_stop"),
        ]  # fmt: skip
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return self._show(request, unquote(object_id), "admin/jobs/bulkaction/detail.html")

    def progress_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The part of the page that is fetched again and again until it has ended."""
        return self._show(request, str(object_id), "admin/jobs/bulkaction/progress.html")

    def stop_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not request.user.has_perm(CHANGE):
            raise PermissionDenied
        row = self._row(request, str(object_id))
        if tasks.stop(row.pk, now=timezone.now()):
            messages.success(request, "It stops after its current batch; what is done stays done.")
        else:
            messages.warning(request, "It had ended before.")
        return HttpResponseRedirect(reverse("admin:jobs_bulkaction_change", args=[row.pk]))

    def _show(self, request: HttpRequest, object_id: str, template: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self._row(request, object_id)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{row.action.capitalize()} jobs",
            "row": row,
            "what": self.what(row),
            "words": inert(_words(row), limit=500),
            "state_word": self.state_word(row),
            "error": inert(row.error),
            "of": max(row.expected or 0, row.looked_at),
            "open": row.finished_at is None,
            "may_stop": request.user.has_perm(CHANGE),
            "refresh_s": REFRESH_S,
            "list_url": _list_url(row),
        }
        return TemplateResponse(request, template, context)

    def _row(self, request: HttpRequest, object_id: str) -> BulkAction:
        row: BulkAction | None = self.get_object(request, object_id)
        if row is None:
            raise Http404("There is no such action; ended ones are forgotten after some months.")
        return row


def _words(row: BulkAction) -> str:
    try:
        return Selection.from_json(row.selection).words()
    except (ValueError, TypeError):
        return "jobs that cannot be told"


def _list_url(row: BulkAction) -> str:
    try:
        query = Selection.from_json(row.selection).query()
    except (ValueError, TypeError):
        query = {}
    query.pop("state", None)
    return jobs_url(**query)
