"""Maintenance windows, tags and groups in the admin.

Whom a window or a tag concerns is told to checkers by `touch`ing the targets.  Runs in request
threads.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, display, register
from control.admin.figures import duration
from healthmon.admin import statuses
from healthmon.targets.models import MaintenanceWindow, Tag, Target, TargetGroup, touch
from healthmon.truth import maintenance
from sinks.optionform import LinesField

MAX_TARGETS = 5_000


class WindowForm(forms.ModelForm[MaintenanceWindow]):
    minutes = forms.IntegerField(
        label="Duration (minutes)", min_value=1, max_value=31 * 24 * 60, initial=60
    )
    target_names = LinesField(
        label="Targets",
        required=False,
        max_length=1_000_000,
        help_text="Names, one a line. The list of targets has an action that fills this in.",
    )

    class Meta:
        model = MaintenanceWindow
        fields = (
            "title", "description", "active", "starts_at", "cron", "time_zone", "ends_at",
            "all_targets", "tags", "groups", "public",
        )  # fmt: skip
        widgets = {
            "tags": forms.CheckboxSelectMultiple,
            "groups": forms.CheckboxSelectMultiple,
            "description": forms.Textarea(attrs={"rows": 3}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "minutes" in self.fields:
            self.initial["minutes"] = max(self.instance.duration_s // 60, 1)
            self.initial["target_names"] = list(
                self.instance.targets.values_list("name", flat=True)
            )

    def clean_target_names(self) -> list[int]:
        names: list[str] = list(dict.fromkeys(self.cleaned_data["target_names"]))
        if len(names) > MAX_TARGETS:
            raise forms.ValidationError(
                f"At most {MAX_TARGETS} targets by name; use a tag or a group."
            )
        found = dict(Target.objects.filter(name__in=names).values_list("name", "pk"))
        missing = [name for name in names if name not in found]
        if missing:
            raise forms.ValidationError(f"There is no target named {', '.join(missing[:5])}.")
        return list(found.values())

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        window = maintenance.Window(
            starts_at=cleaned["starts_at"],
            duration_s=cleaned["minutes"] * 60,
            cron=(cleaned.get("cron") or "").strip(),
            time_zone=cleaned["time_zone"],
            ends_at=cleaned.get("ends_at"),
        )
        wrong = maintenance.problem(window)
        if wrong:
            field = next((name for name in ("cron", "time zone") if name in wrong), "ends_at")
            self.add_error(field.replace(" ", "_"), wrong[:1].upper() + wrong[1:])
        whom = ("all_targets", "tags", "groups", "target_names")
        if not any(cleaned.get(name) for name in whom):
            self.add_error("target_names", "It is for nothing: name targets, tags or groups.")
        return cleaned

    def save(self, commit: bool = True) -> Any:
        self.instance.duration_s = self.cleaned_data["minutes"] * 60
        return super().save(commit)

    def _save_m2m(self) -> None:
        super()._save_m2m()  # type: ignore[misc]
        self.instance.targets.set(self.cleaned_data["target_names"])


@register(MaintenanceWindow)
class MaintenanceWindowAdmin(ModelAdmin):
    form = WindowForm
    list_display = ("title", "state", "starts", "length", "again", "whom")
    list_filter = ("active",)
    search_fields = ("title",)
    fieldsets = (
        (None, {"fields": ("title", "description", "active", "public")}),
        ("When", {"fields": ("starts_at", "minutes", "cron", "time_zone", "ends_at")}),
        ("For", {"fields": ("all_targets", "tags", "groups", "target_names")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[MaintenanceWindow]:
        queryset: QuerySet[MaintenanceWindow] = super().get_queryset(request)
        return queryset.annotate(named=Count("targets", distinct=True)).prefetch_related(
            "tags", "groups"
        )

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        initial.setdefault("starts_at", timezone.now().replace(second=0, microsecond=0))
        return initial

    @display(description="State")
    def state(self, row: MaintenanceWindow) -> SafeString:
        if not row.active:
            return statuses.mark("paused", word="switched off")
        window, now = maintenance.Window.of(row), timezone.now()
        if maintenance.problem(window):
            return statuses.mark("down", word="broken")
        until = maintenance.open_until(window, now)
        if until is not None:
            return statuses.mark("maintenance", word=f"on, until {until:%m-%d %H:%M}")
        coming = maintenance.next_start(window, now)
        if coming is None:
            return statuses.mark("new", word="over")
        return statuses.mark("new", word=f"next {coming:%Y-%m-%d %H:%M}")

    @display(description="Starts at", ordering="starts_at")
    def starts(self, row: MaintenanceWindow) -> str:
        return f"{row.starts_at:%Y-%m-%d %H:%M} UTC"

    @display(description="Duration", ordering="duration_s")
    def length(self, row: MaintenanceWindow) -> str:
        return duration(row.duration_s)

    @display(description="Again")
    def again(self, row: MaintenanceWindow) -> str:
        return f"{row.cron} ({row.time_zone})" if row.cron else "once"

    @display(description="For")
    def whom(self, row: Any) -> str:
        if row.all_targets:
            return "all targets"
        named = f"{row.named} target{'' if row.named == 1 else 's'}" if row.named else ""
        tags = ", ".join(tag.name for tag in row.tags.all())
        groups = ", ".join(group.name for group in row.groups.all())
        parts = (named, f"tags {tags}" if tags else "", f"groups {groups}" if groups else "")
        return "; ".join(filter(None, parts))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        row: MaintenanceWindow = form.instance
        concerned = Target.objects.filter(
            Q(maintenance_windows=row) | Q(tags__maintenance_windows=row)
            | Q(group__maintenance_windows=row)
        )  # fmt: skip
        targets = Target.objects.all() if row.all_targets else concerned.distinct()
        touch(targets.values_list("pk", flat=True))


class _Counted(ModelAdmin):
    """A name with the number of targets that have it."""

    search_fields = ("name",)
    parameter = ""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)
        counted: QuerySet[Any] = queryset.annotate(count=Count("targets"))
        return counted

    @display(description="Targets", ordering="count")
    def target_count(self, row: Any) -> SafeString:
        value = row.name if self.parameter == "tag" else row.pk
        address = reverse("admin:healthmon_target_changelist", query={self.parameter: value})
        return format_html('<a href="{}">{}</a>', address, row.count)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        ids = list(obj.targets.values_list("pk", flat=True))
        super().delete_model(request, obj)
        touch(ids)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        ids = list(queryset.values_list("targets", flat=True))
        super().delete_queryset(request, queryset)
        touch(pk for pk in ids if pk is not None)


@register(Tag)
class TagAdmin(_Counted):
    list_display = ("name", "target_count")
    parameter = "tag"


@register(TargetGroup)
class TargetGroupAdmin(_Counted):
    list_display = ("name", "order", "target_count")
    parameter = "group"
