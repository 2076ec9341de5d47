"""Downstream services in the admin: where they are, what they are spared, who calls them.

Secret headers go in and are not shown again.  Runs in request threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, display, register
from control.admin.figures import duration, percent
from control.admin.inert import inert, one_line
from jobs.admin import marks, runners
from jobs.admin.jsonfields import JsonField
from jobs.admin.runners import Health
from jobs.admin.secretfields import SecretHeadersField, merged, shown
from jobs.types.models import DownstreamService, TypeStep
from jobs.types.problems import downstream_doubts, downstream_problems


class DownstreamForm(forms.ModelForm):  # type: ignore[type-arg]
    headers = JsonField(
        empty={},
        kind=dict,
        rows=2,
        max_bytes=16_000,
        help_text='Sent with every call: a JSON object of texts, such as {"Accept": '
        '"application/json"}.',
    )
    new_secret_headers = SecretHeadersField()
    remove_secret_headers = forms.MultipleChoiceField(
        required=False,
        label="Remove secret headers",
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = DownstreamService
        exclude: ClassVar[list[str]] = ["secret_headers"]
        labels: ClassVar[dict[str, str]] = {
            "timeout_s": "Timeout (s)",
            "max_response_bytes": "Largest answer (bytes)",
            "max_concurrent": "Calls at once",
            "rate_per_s": "Calls a second",
            "breaker_rule": "It opens when",
            "breaker_ratio": "Share that failed",
            "breaker_min_calls": "Of at least (calls)",
            "breaker_window_s": "Within (s)",
            "breaker_consecutive": "Failures in a row",
            "breaker_open_s": "Stays open (s)",
            "breaker_probes": "Calls to try it",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "base_url": "With a path before all steps' paths, if there is one. Private and "
            "loopback addresses may be named.",
            "max_concurrent": "Empty: no limit.",
            "rate_per_s": "Empty: no limit.",
            "burst": "Empty: as many as a second's.",
        }
        widgets: ClassVar[dict[str, Any]] = {
            "notes": forms.Textarea(attrs={"rows": 2, "class": "vLargeTextField"}),
            "max_response_bytes": forms.NumberInput(attrs={"style": "width: 9rem"}),
            "base_url": forms.TextInput(attrs={"class": "vLargeTextField", "type": "url"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kept = self.instance.secret_headers or {}
        if "remove_secret_headers" not in self.fields:
            return
        if kept:
            self.fields["remove_secret_headers"].choices = [  # type: ignore[attr-defined]
                (name, shown(name, value)) for name, value in sorted(kept.items())
            ]
        else:
            del self.fields["remove_secret_headers"]

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        data = self.cleaned_data
        if "new_secret_headers" not in self.errors:
            self.instance.secret_headers = merged(
                self.instance.secret_headers or {},
                removed=data.get("remove_secret_headers") or [],
                added=data.get("new_secret_headers") or {},
            )
        if self.errors:
            return
        for name, text in downstream_problems(self.instance).items():
            field = "new_secret_headers" if name == "secret_headers" else name
            self.add_error(field if field in self.fields else None, text)


@register(DownstreamService)
class DownstreamAdmin(ModelAdmin):
    form = DownstreamForm
    list_display = ("name", "base_url", "breaker", "failed", "limits", "used_by")
    search_fields = ("name", "base_url")
    readonly_fields = ("health", "steps_that_call")
    fieldsets = (
        (None, {"fields": ("name", "base_url", "health", "notes")}),
        (
            "The call",
            {
                "fields": (
                    "headers",
                    "remove_secret_headers",
                    "new_secret_headers",
                    ("timeout_s", "expected_status"),
                    ("max_response_bytes", "follow_redirects", "verify_tls"),
                )
            },
        ),
        (
            "What it is spared, by all runners together",
            {"fields": ("max_concurrent", ("rate_per_s", "burst"))},
        ),
        (
            "Breaker, each runner's own",
            {
                "description": "While it is open nothing is called: jobs are delayed, and no "
                "attempt is spent.",
                "fields": (
                    "breaker_rule",
                    ("breaker_ratio", "breaker_min_calls", "breaker_window_s"),
                    "breaker_consecutive",
                    ("breaker_open_s", "breaker_probes"),
                ),
            },
        ),
        ("Where it is used", {"fields": ("steps_that_call",)}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """A new one is called by nobody yet, and has no secret to remove."""
        left_out = set()
        if obj is None:
            left_out |= {"health", "steps_that_call"}
        if obj is None or not obj.secret_headers:
            left_out.add("remove_secret_headers")
        sets = [
            (name, {**options, "fields": [one for one in options["fields"] if one not in left_out]})
            for name, options in self.fieldsets
        ]
        return [(name, options) for name, options in sets if options["fields"]]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        for doubt in downstream_doubts(obj):
            messages.warning(request, f"{obj.name}: {inert(doubt)}.")

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> Any:
        """Names the types whose steps call it: it goes when none does."""
        rows = list(objs)
        steps = TypeStep.objects.filter(downstream__in=rows).select_related("type")
        kept = [
            format_html(
                'Job type <a href="{}">{}</a>, step {}',
                reverse("admin:jobs_jobtype_change", args=[one.type_id]),
                one.type.name,
                one.name,
            )
            for one in steps.order_by("type__name", "stage")[:100]
        ]
        return [f"Downstream service {row.name}" for row in rows], {}, set(), kept

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)
        counted: QuerySet[Any] = queryset.annotate(steps_count=Count("steps"))
        return counted

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Each row with what runners say of it, asked for once."""
        listed = super().get_changelist_instance(request)
        told = _health()
        for row in listed.result_list:
            row.told = told.get(row.name)
        return listed

    @display(description="Breaker")
    def breaker(self, row: Any) -> SafeString | str:
        health: Health | None = row.told
        return marks.breaker_mark(health.breaker) if health is not None else "not called yet"

    @display(description="Failed")
    def failed(self, row: Any) -> str:
        health: Health | None = row.told
        if health is None or not health.calls:
            return self.get_empty_value_display()
        return f"{health.failures:,} of {health.calls:,}"

    @display(description="Limits")
    def limits(self, row: DownstreamService) -> str:
        said = []
        if row.max_concurrent is not None:
            said.append(f"{row.max_concurrent:,} at once")
        if row.rate_per_s is not None:
            said.append(f"{row.rate_per_s:g}/s")
        return ", ".join(said) or self.get_empty_value_display()

    @display(description="Steps", ordering="steps_count")
    def used_by(self, row: Any) -> int:
        return int(row.steps_count)

    @display(description="Now")
    def health(self, row: DownstreamService) -> SafeString | str:
        health = _health().get(row.name)
        doubts = format_html_join("", "{}.<br>", ((inert(one),) for one in downstream_doubts(row)))
        if health is None:
            return format_html("{}No living runner has called it yet.", doubts)
        said = [
            f"{health.calls:,} calls",
            f"{health.failures:,} failed ({percent(health.failed_share)})"
            if health.failures
            else "none failed",
            f"{health.in_flight:,} in flight",
            f"{health.trips:,} trip{'' if health.trips == 1 else 's'}",
        ]
        if health.retry_in_s:
            said.append(f"tried again in {duration(health.retry_in_s)}")
        why = format_html("<br>{}", one_line(health.cause, limit=300)) if health.cause else ""
        return format_html(
            "{}{}; {}{}{}",
            doubts,
            marks.breaker_mark(health.breaker),
            ", ".join(said),
            f", since each living runner began.{health.tripped}",
            why,
        )

    @display(description="Steps that call it")
    def steps_that_call(self, row: DownstreamService) -> SafeString | str:
        steps = row.steps.select_related("type").order_by("type__name", "stage")[:100]
        if not steps:
            return "None: it can be deleted."
        return format_html_join(
            "",
            '<a href="{}">{}</a>: {} ({} {})<br>',
            (
                (
                    reverse("admin:jobs_jobtype_change", args=[one.type_id]),
                    one.type.name,
                    one.name,
                    one.method,
                    one.path or "/",
                )
                for one in steps
            ),
        )


def _health() -> dict[str, Health]:
    return runners.downstreams(runners.runners(timezone.now()))
