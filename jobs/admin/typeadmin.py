"""Job types in the admin, each with its steps.  Runs in request threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, action, display, register
from jobs.admin import submitting
from jobs.admin.problems import jobs_url
from jobs.admin.typeforms import JobTypeForm, StepForm, StepFormSet
from jobs.store.models import Job
from jobs.types import catalogue
from jobs.types.models import JobType, TypeStep


class StepInline(admin.StackedInline[TypeStep, JobType]):
    model = TypeStep
    form = StepForm
    formset = StepFormSet
    extra = 0
    verbose_name = "step"
    verbose_name_plural = "steps"
    classes = ("steps-inline",)
    fields = (
        ("name", "stage", "kind"),
        ("downstream", "method"),
        "path",
        "headers",
        "body",
        ("expected_status", "timeout_s"),
        "handler",
    )


@register(JobType)
class JobTypeAdmin(ModelAdmin):
    form = JobTypeForm
    inlines = (StepInline,)
    list_display = ("name", "state", "aggregation", "step_count", "limits", "its_jobs")
    list_filter = ("enabled",)
    search_fields = ("name", "description")
    actions = ("enable", "disable")
    change_form_template = "admin/jobs/jobtype/change_form.html"
    fieldsets = (
        (None, {"fields": ("name", "description", "enabled", "payload_schema")}),
        ("When it has succeeded", {"fields": (("aggregation", "quorum"),)}),
        (
            "Attempts and time",
            {
                "fields": (
                    ("max_attempts", "default_priority"),
                    ("backoff_base_s", "backoff_cap_s"),
                    "deadline_s",
                )
            },
        ),
        (
            "Limits, for all runners together",
            {"classes": ("collapse",), "fields": ("max_concurrent", ("rate_per_s", "burst"))},
        ),
        (
            "How long jobs are kept, in days",
            {
                "classes": ("collapse",),
                "description": "Empty: as long as the installation keeps them.",
                "fields": ("keep_succeeded_days", "keep_dead_days", "keep_cancelled_days"),
            },
        ),
        (
            "Webhook",
            {
                "classes": ("collapse",),
                "fields": (
                    "webhook_url",
                    "new_webhook_secret",
                    "clear_webhook_secret",
                    "job_webhooks",
                ),
            },
        ),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None and obj.webhook_secret:
            return self.fieldsets
        return [
            (
                name,
                {
                    **options,
                    "fields": tuple(one for one in options["fields"] if one != _CLEAR),
                },
            )
            for name, options in self.fieldsets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Clients submit by it, and schedules and exports name it.
        return ("name",) if obj is not None else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)
        counted: QuerySet[Any] = queryset.annotate(steps_count=Count("steps"))
        return counted

    # --- the list --------------------------------------------------------------------------

    @display(description="State", ordering="enabled")
    def state(self, row: Any) -> SafeString:
        broken = catalogue.current().broken.get(f"type {row.name}")
        word = "broken" if broken else "enabled" if row.enabled else "disabled"
        dot = {"broken": "bad", "enabled": "good", "disabled": "idle"}[word]
        return format_html(
            '<span class="dot dot-{}" aria-hidden="true"></span>{}{}',
            dot,
            word,
            format_html("<small>{}</small>", broken[:200])
            if broken
            else ""
            if row.steps_count
            else format_html("<small>{}</small>", "no steps: its jobs do nothing"),
        )

    @display(description="Steps", ordering="steps_count")
    def step_count(self, row: Any) -> int:
        return int(row.steps_count)

    @display(description="Limits")
    def limits(self, row: JobType) -> str:
        said = []
        if row.max_concurrent is not None:
            said.append(f"{row.max_concurrent:,} at once")
        if row.rate_per_s is not None:
            said.append(f"{row.rate_per_s:g}/s")
        return ", ".join(said) or self.get_empty_value_display()

    @display(description="Jobs")
    def its_jobs(self, row: JobType) -> SafeString:
        return format_html('<a href="{}">its jobs</a>', jobs_url(type=row.name))

    @action(description="Enable the selected types", permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        self._switch(request, rows, enabled=True)

    @action(description="Disable the selected types: they take no jobs, and those they have wait",
            permissions=["change"])  # fmt: skip
    def disable(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        self._switch(request, rows, enabled=False)

    def _switch(self, request: HttpRequest, rows: QuerySet[Any], *, enabled: bool) -> None:
        changed = list(rows.filter(enabled=not enabled))
        for row in changed:
            row.enabled = enabled
            row.save(update_fields=["enabled", "updated_at"])
            self.log_change(request, row, "Enabled." if enabled else "Disabled.")
        count = len(changed)
        self.message_user(
            request,
            f"{count} job type{'' if count == 1 else 's'} {'enabled' if enabled else 'disabled'}.",
            messages.SUCCESS,
        )

    # --- deletion --------------------------------------------------------------------------

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if not super().has_delete_permission(request, obj):
            return False
        # Its jobs tell their story by it; when the last is forgotten it can go.
        return obj is None or not Job.objects.filter(type_id=obj.pk).exists()

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> Any:
        """What goes with it, without naming each minute of its figures."""
        rows = list(objs)
        told = [f"Job type {row.name}" for row in rows]
        told += [f"Step {one}" for row in rows for one in row.steps.all()]
        told += [f"Schedule {one}" for row in rows for one in row.schedules.all()]
        return told, {"job types": len(rows)}, set(), []

    # --- one type --------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                "<path:object_id>/submit/",
                self.admin_site.admin_view(self.submit_view),
                name="jobs_jobtype_submit",
            )
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row: JobType | None = self.get_object(request, unquote(object_id))
        context: dict[str, Any] = {}
        if row is not None:
            context = {
                "jobs_url": jobs_url(type=row.name),
                "may_submit": request.user.has_perm("jobs.add_job"),
                "broken": catalogue.current().broken.get(f"type {row.name}", ""),
                "stepless": not row.steps.exists(),
                "undeletable": super().has_delete_permission(request, row)
                and not self.has_delete_permission(request, row),
            }
        shown: HttpResponse = super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )
        return shown

    def submit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row: JobType | None = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404("There is no such job type.")
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        return submitting.page(self, request, row)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not form.instance.steps.exists():
            messages.warning(request, f"{form.instance.name} has no steps: its jobs do nothing.")

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> Any:
        # The next thing to do with a new type is to try it.
        if "_continue" not in request.POST and "_addanother" not in request.POST:
            messages.info(
                request,
                format_html(
                    'Try it: <a href="{}">submit a job of it</a>.',
                    reverse("admin:jobs_jobtype_submit", args=[obj.pk]),
                ),
            )
        return super().response_add(request, obj, post_url_continue)


_CLEAR = "clear_webhook_secret"
