"""Schedules in the admin, with the times at which they come next.  Runs in request threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, action, display, register
from control.admin.figures import duration
from control.admin.inert import one_line
from jobs.admin.jsonfields import JsonField
from jobs.payloads import SchemaError, payload_errors
from jobs.schedules import cron
from jobs.schedules.firing import Firing
from jobs.store.database import store
from jobs.types.models import JobSchedule

NEXT_SHOWN = 5
MAX_NOW = 20


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]
    payload = JsonField(empty={}, rows=6, help_text="Of each job that it submits.")

    class Meta:
        model = JobSchedule
        fields: ClassVar[list[str]] = [
            "name", "type", "cron", "timezone", "payload", "priority", "service", "tenant",
            "enabled", "missed", "overlap",
        ]  # fmt: skip
        help_texts: ClassVar[dict[str, str]] = {
            "cron": "Minute, hour, day of month, month, day of week, such as 30 2 * * 1-5; or "
            "@hourly, @daily, @weekly, @monthly, @yearly.",
            "timezone": "By whose wall clock, such as Europe/Vienna.",
            "priority": "Empty: that of the type.",
        }

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if "cron" in data and "timezone" in data:
            for name, text in cron.problems(data["cron"], data["timezone"]).items():
                self.add_error(name, f"{text}.")
        row = data.get("type")
        if row is not None and "payload" in data:
            try:
                wrong = payload_errors(row.pk, row.payload_schema or {}, data["payload"])
            except SchemaError as error:
                self.add_error("type", f"Its payload schema cannot be used: {error}")
            else:
                for one in wrong:
                    self.add_error("payload", f"{one.pointer or 'The payload'}: {one.detail}")
        return data


@register(JobSchedule)
class ScheduleAdmin(ModelAdmin):
    form = ScheduleForm
    list_display = ("name", "type", "cron", "timezone", "state", "next_time", "last")
    list_filter = ("enabled",)
    list_select_related = ("type",)
    search_fields = ("name", "type__name")
    actions = ("submit_now", "enable", "disable")
    change_form_template = "admin/jobs/jobschedule/change_form.html"
    readonly_fields = ("next_times", "last", "trouble")
    fieldsets = (
        (None, {"fields": ("name", "type", "enabled")}),
        ("When", {"fields": (("cron", "timezone"), "next_times", "missed", "overlap")}),
        ("The job", {"fields": ("payload", "priority", "service", "tenant")}),
        ("What it did", {"fields": ("last", "trouble")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None:
            return self.fieldsets
        told = {"next_times", "last", "trouble"}
        sets = [
            (name, {**options, "fields": [one for one in options["fields"] if one not in told]})
            for name, options in self.fieldsets
        ]
        return [(name, options) for name, options in sets if options["fields"]]

    @display(description="State", ordering="enabled")
    def state(self, row: JobSchedule) -> SafeString:
        word = "failing" if row.enabled and row.last_error else "on" if row.enabled else "off"
        dot = {"failing": "bad", "on": "good", "off": "idle"}[word]
        return format_html('<span class="dot dot-{}" aria-hidden="true"></span>{}', dot, word)

    @display(description="Next (UTC)", ordering="next_at")
    def next_time(self, row: JobSchedule) -> SafeString | str:
        if not row.enabled:
            return self.get_empty_value_display()
        now = timezone.now()
        try:
            at = cron.next_time(row.cron, row.timezone, now)
        except cron.ScheduleError as error:
            return one_line(str(error), limit=120)
        if at is None:
            return "never"
        return format_html(
            "{}<small>in {}</small>",
            f"{at:%Y-%m-%d %H:%M}",
            duration((at - now).total_seconds()),
        )

    @display(description="Last (UTC)", ordering="last_at")
    def last(self, row: JobSchedule) -> SafeString | str:
        if row.last_at is None:
            return "never yet"
        words = f"{row.last_at:%Y-%m-%d %H:%M:%S}"
        if row.last_job is None:
            return words
        return format_html(
            '<a href="{}">{}</a>', reverse("admin:jobs_job_change", args=[row.last_job]), words
        )

    @display(description="Next times")
    def next_times(self, row: JobSchedule) -> SafeString | str:
        try:
            zone = cron.zone_of(row.timezone)
            times = cron.next_times(row.cron, row.timezone, timezone.now(), NEXT_SHOWN)
        except cron.ScheduleError as error:
            return str(error)
        if not times:
            return "It never comes."
        off = "" if row.enabled else "If it were on: "
        rows = ((f"{at:%Y-%m-%d %H:%M} UTC", f"{at.astimezone(zone):%a %H:%M %Z}") for at in times)
        return format_html("{}{}", off, format_html_join("", "{} ({})<br>", rows))

    @display(description="Error")
    def trouble(self, row: JobSchedule) -> str:
        return one_line(row.last_error, limit=500) or "none"

    @action(description="Submit one job of each selected schedule now", permissions=["change"])
    def submit_now(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        if not request.user.has_perm("jobs.add_job"):
            raise PermissionDenied
        for row in rows.select_related("type")[:MAX_NOW]:
            self._submit_one(request, row)

    def _submit_one(self, request: HttpRequest, row: JobSchedule) -> UUID | None:
        """A job as its time would submit it; when it comes next, and its last, stay as they are."""
        now = timezone.now()
        draft, error = Firing(store=store(), now=timezone.now).draft(row, now)
        if draft is None:
            messages.error(request, f"{row.name}: nothing was submitted: {error}.")
            return None
        by = request.user.get_username()
        own = replace(
            draft,
            correlation_id=f"{row.name}:now:{now:%Y-%m-%dT%H:%M:%SZ}",
            submitted_by=f"{by}, for schedule {row.name}"[:200],
        )
        store().submit([own])
        self.log_change(request, row, f"Submitted job {own.id}.")
        messages.success(
            request,
            format_html(
                '{}: <a href="{}">a job</a> is queued.',
                row.name,
                reverse("admin:jobs_job_change", args=[own.id]),
            ),
        )
        return own.id

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = path("<int:object_id>/now/", wrap(self.now_view), name="jobs_jobschedule_now")
        return [own, *super().get_urls()]

    def now_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row: JobSchedule | None = self.get_object(request, str(object_id))
        if row is None:
            raise Http404("There is no such schedule.")
        if not self.has_change_permission(request, row) or not request.user.has_perm(
            "jobs.add_job"
        ):
            raise PermissionDenied
        self._submit_one(request, row)
        return HttpResponseRedirect(reverse("admin:jobs_jobschedule_change", args=[row.pk]))

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kw: Any) -> Any:
        row = kw.get("obj")
        context["may_submit"] = (
            row is not None
            and self.has_change_permission(request, row)
            and request.user.has_perm("jobs.add_job")
        )
        return super().render_change_form(request, context, *args, **kw)

    @action(description="Switch the selected schedules on", permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        self._switch(request, rows, enabled=True)

    @action(description="Switch the selected schedules off", permissions=["change"])
    def disable(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        self._switch(request, rows, enabled=False)

    def _switch(self, request: HttpRequest, rows: QuerySet[Any], *, enabled: bool) -> None:
        changed = list(rows.filter(enabled=not enabled))
        for row in changed:
            row.enabled = enabled
            row.save(update_fields=["enabled"])
            self.log_change(request, row, "Switched on." if enabled else "Switched off.")
        word = "on" if enabled else "off"
        count = len(changed)
        self.message_user(
            request,
            f"{count} schedule{'' if count == 1 else 's'} switched {word}.",
            messages.SUCCESS,
        )
