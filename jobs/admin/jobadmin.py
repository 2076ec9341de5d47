"""Jobs in the admin: the list, one job's story, and what can be asked of one or of many.

Whoever may view may look; asking needs the change permission.  Only the Store changes a job.  Runs
in request threads; holds no state.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
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
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.cache import never_cache

from control.admin import KeysetModelAdmin, action, display, register
from control.admin.figures import ago, duration
from control.admin.inert import one_line
from jobs.admin import board, bulkpages, marks, story
from jobs.admin.filters import JobFilter
from jobs.bulk.models import ACTIONS, CANCEL, DISCARD, REPRIORITISE, RETRY
from jobs.states import RUNNING
from jobs.store.database import store
from jobs.store.models import Job

DEFAULT_TENANT = "default"
_DONE = {
    RETRY: "It is queued again.",
    CANCEL: "It is cancelled.",
    REPRIORITISE: "Its priority is another now.",
    DISCARD: "It is discarded.",
}


@register(Job)
class JobAdmin(KeysetModelAdmin):
    filter_form_class = JobFilter
    list_display = ("what", "state_mark", "type_name", "why", "took", "belongs", "when")
    list_display_links = None
    actions = ("retry_chosen", "cancel_chosen", "reprioritise_chosen", "discard_chosen")
    change_list_template = "admin/jobs/job/list.html"

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False  # POST /jobs does, and the page of a type

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # they are forgotten when their days are over

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)
        resolved = request.resolver_match
        if resolved is not None and str(resolved.url_name).endswith("_changelist"):
            # The types are few: asked for once, instead of joined to a large table.
            queryset = queryset.defer("payload", "result").prefetch_related("type")
        return queryset

    # --- the list --------------------------------------------------------------------------

    @display(description="Job")
    def what(self, row: Job) -> SafeString:
        text = str(row.pk)
        return format_html(
            '<a class="job-id" href="{}" aria-label="Job {}">{}<wbr>{}</a>{}',
            reverse("admin:jobs_job_change", args=[row.pk]),
            text,
            text[:18],
            text[18:],
            _small(one_line(row.correlation_id, limit=40)),
        )

    @display(description="State")
    def state_mark(self, row: Job) -> SafeString:
        return format_html(
            "{}{}", marks.state_mark(row.state), _small(marks.reason_word(row.reason))
        )

    @display(description="Type")
    def type_name(self, row: Job) -> str:
        return row.type.name if row.type is not None else f"type {row.type_id}, gone"

    @display(description="Error")
    def why(self, row: Job) -> SafeString:
        return format_html('<div class="clamp">{}</div>', one_line(row.error, limit=240))

    @display(description="Last run")
    def took(self, row: Job) -> SafeString:
        """The last attempt; and from its submission to its end."""
        ends = timezone.now() if row.state == RUNNING else row.finished_at
        began = row.started_at
        took = duration(max(0.0, (ends - began).total_seconds())) if ends and began else ""
        tries = f"{row.attempts} attempt{'' if row.attempts == 1 else 's'}"
        whole = ""
        if row.finished_at is not None:
            whole = f", {duration((row.finished_at - row.created_at).total_seconds())} in all"
        said = f"{tries if row.attempts else 'not begun'}{whole}" if row.attempts or whole else ""
        return format_html("{}{}", took, _small(said))

    @display(description="Service")
    def belongs(self, row: Job) -> SafeString:
        tenant = "" if row.tenant == DEFAULT_TENANT else one_line(row.tenant, limit=40)
        return format_html("{}{}", one_line(row.service, limit=40), _small(tenant))

    @display(description="Submitted (UTC)")
    def when(self, row: Job) -> SafeString:
        now = timezone.now()
        return format_html("{}{}", f"{row.created_at:%m-%d %H:%M:%S}",
                           _small(ago(row.created_at, now)))  # fmt: skip

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        query = request.GET.copy()
        for name in ("before", "after", "_changelist_filters"):
            query.pop(name, None)
        context = {
            "selection_query": query.urlencode(),
            "bulk_offers": bulkpages.offers(query) if self.has_change_permission(request) else [],
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    @action(description="Retry the selected jobs", permissions=["change"])
    def retry_chosen(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse:
        return self._chosen(request, RETRY, rows)

    @action(description="Cancel the selected jobs", permissions=["change"])
    def cancel_chosen(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse:
        return self._chosen(request, CANCEL, rows)

    @action(description="Change the priority of the selected jobs", permissions=["change"])
    def reprioritise_chosen(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse:
        return self._chosen(request, REPRIORITISE, rows)

    @action(description="Discard the selected jobs", permissions=["change"])
    def discard_chosen(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse:
        return self._chosen(request, DISCARD, rows)

    def _chosen(self, request: HttpRequest, name: str, rows: QuerySet[Any]) -> HttpResponse:
        ids = [str(pk) for pk in rows.values_list("pk", flat=True)[: bulkpages.MAX_IDS]]
        return bulkpages.ask(self, request, name, ids=ids)

    # --- one job ---------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path("board/", never_cache(self.board_view), name="jobs_job_board"),
            path("bulk/<slug:name>/", wrap(self.bulk_view), name="jobs_job_bulk"),
            path("<uuid:object_id>/story/", wrap(self.story_view), name="jobs_job_story"),
            path("<uuid:object_id>/ask/<slug:name>/", wrap(self.ask_view), name="jobs_job_ask"),
        ]
        return [*own, *super().get_urls()]

    def board_view(self, request: HttpRequest) -> HttpResponse:
        site: Any = self.admin_site
        if (to_login := site.to_login(request, "admin:app_list", "jobs")) is not None:
            answer: HttpResponse = to_login
            return answer
        shown: HttpResponse = site.admin_view(board.fragment)(request)
        return shown

    def bulk_view(self, request: HttpRequest, name: str) -> HttpResponse:
        if name not in ACTIONS:
            raise Http404("There is no such action.")
        return bulkpages.page(self, request, name)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        key = unquote(object_id)
        if self.get_object(request, key) is None and self.has_view_or_change_permission(request):
            messages.warning(
                request,
                f"There is no job {one_line(key, limit=60)}: it is not kept any more, or its id "
                "is another. How long ended jobs are kept, their types say.",
            )
            return HttpResponseRedirect(reverse("admin:jobs_job_changelist"))
        return self._show(request, key, "admin/jobs/job/detail.html")

    def story_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """The part of the page that is fetched again and again while the job has not ended."""
        return self._show(request, str(object_id), "admin/jobs/job/story.html")

    def ask_view(self, request: HttpRequest, object_id: UUID, name: str) -> HttpResponse:
        """Retry, cancel, reprioritise or discard this one job, at once."""
        if name not in ACTIONS:
            raise Http404("There is no such action.")
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = self._row(request, str(object_id))
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        try:
            args = bulkpages.args_of(name, request.POST)
        except ValueError as error:
            messages.error(request, str(error))
            return self._back(row)
        verb: Any = name
        told = store().change(verb, [row.pk], by=request.user.get_username(), args=args)
        done = told.get(row.pk)
        if done is not None and done.asked:
            messages.success(request, "Its runner was told; it ends in a moment.")
        elif done is not None and done.changed:
            messages.success(request, _DONE[name])
        else:
            state = done.state if done is not None else "forgotten"
            messages.warning(request, f"Nothing was changed: by now it is {state}.")
        return self._back(row)

    def _back(self, row: Job) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:jobs_job_change", args=[row.pk]))

    def _show(self, request: HttpRequest, object_id: str, template: str) -> HttpResponse:
        row = self._row(request, object_id)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Job {row.pk}",
            "may_submit": request.user.has_perm("jobs.add_job"),
            "may_change": self.has_change_permission(request, row),
            "priorities": bulkpages.PRIORITIES,
            "refresh_s": board.REFRESH_S,
            **story.context(row, timezone.now()),
        }
        return TemplateResponse(request, template, context)

    def _row(self, request: HttpRequest, object_id: str) -> Job:
        row: Job | None = self.get_object(request, object_id)
        if row is None:
            raise Http404("There is no such job; ended ones are forgotten after some days.")
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        return row


def _small(text: str) -> SafeString | str:
    return format_html("<small>{}</small>", text) if text else ""
