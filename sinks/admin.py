"""Sinks in the admin: added in two steps, tried, paused and resumed, with their state as it is.

Runs in request threads.  Nothing here touches a pipeline: rows are changed, and every process
follows them within seconds.  `try` makes a sink object of its own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
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

from control.admin import ModelAdmin, action, display, register
from control.admin.overview import overview_for
from control.admin.pipelines import PipelineView
from control.processes import heart
from sinks import backlog, changes
from sinks.deadletters import admin as letters_admin
from sinks.deadletters import taskadmin
from sinks.forms import OPTION, TUNING, BackendForm, SinkForm, form_for
from sinks.models import SinkConfig
from sinks.registry import Backend, BackendError, available_backends, load_backend
from sinks.trial import try_sink
from sinks.tuninggroups import GROUPS, Group

__all__ = ["SinkConfigAdmin", "letters_admin", "taskadmin"]

MAX_TRIED = 10
# What a field of the pipeline's settings holds that sets nothing.
UNSET = ("", "default", "database")
# Within this a process has seen the row and written its figures.
STARTING = timedelta(seconds=10)


@register(SinkConfig)
class SinkConfigAdmin(ModelAdmin):
    form = SinkForm
    list_display = ("name", "kind", "live_state", "takes", "delivery")
    list_filter = ("enabled", "paused", "required")
    search_fields = ("name", "backend")
    actions = ("pause", "resume", "try_out")
    change_form_template = "admin/sinks/sinkconfig/change_form.html"
    delete_confirmation_template = "admin/sinks/sinkconfig/delete_confirmation.html"

    # --- the list --------------------------------------------------------------------------

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        listed = super().get_changelist_instance(request)
        # Held by each row, as the columns are not told the request.
        for row in listed.result_list:
            row.live = _live(request, row)
        return listed

    @display(description="Kind", ordering="backend")
    def kind(self, row: SinkConfig) -> str:
        backend = _backend_of(row)
        return backend.label if backend is not None else row.backend

    @display(description="State")
    def live_state(self, row: SinkConfig) -> SafeString:
        colour, word = _state(row, getattr(row, "live", None))
        return format_html('<span class="dot dot-{}" aria-hidden="true"></span>{}', colour, word)

    @display(description="Takes")
    def takes(self, row: SinkConfig) -> str:
        types = ", ".join(map(str, row.route_types)) or "all types"
        tenants = f"; tenants {', '.join(map(str, row.route_tenants))}" if row.route_tenants else ""
        level = f"; {row.min_level} and above" if row.min_level else ""
        return f"{types}{tenants}{level}"

    @display(description="Delivery", ordering="required")
    def delivery(self, row: SinkConfig) -> str:
        return "required" if row.required else "optional"

    @action(description="Pause the selected sinks")
    def pause(self, request: HttpRequest, rows: QuerySet[SinkConfig]) -> None:
        self._set_paused(request, rows, True)

    @action(description="Resume the selected sinks")
    def resume(self, request: HttpRequest, rows: QuerySet[SinkConfig]) -> None:
        self._set_paused(request, rows, False)

    @action(description="Test the selected sinks")
    def try_out(self, request: HttpRequest, rows: QuerySet[SinkConfig]) -> None:
        self._need_change(request)
        for row in rows[:MAX_TRIED]:
            self._try(request, row)
        if rows.count() > MAX_TRIED:
            self.message_user(
                request, f"The first {MAX_TRIED} were tested.", level=messages.WARNING
            )

    # --- one sink --------------------------------------------------------------------------

    def get_form(
        self,
        request: HttpRequest,
        obj: SinkConfig | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        kwargs["form"] = form_for(self._backend(request, obj))
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: SinkConfig | None = None) -> Any:
        made = form_for(self._backend(request, obj))
        options = [OPTION + option.name for option in made.option_fields]
        sets: list[Any] = [
            (None, {"fields": ["name", "required", "enabled"]}),
            ("Takes", {"fields": ["route_types", "route_tenants", "min_level"]}),
        ]
        if options:
            sets.insert(1, ("Options", {"fields": options}))
        if made.tuning_fields:
            sets += [_tuning_set(group, request, obj) for group in GROUPS]
        return sets

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Without a backend in the address, the first step: which one."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        backend = self._backend(request, None)
        if backend is None:
            return self._choose_backend(request)
        context = {
            **(extra_context or {}),
            "backend": backend,
            "title": f"Add sink: {backend.label}",
            "show_save_and_add_another": False,
        }
        response: HttpResponse = super().add_view(request, form_url, context)
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        context = dict(extra_context or {})
        if row is not None:
            live = _live(request, row)
            colour, word = _state(row, live)
            context |= {
                "backend": _backend_of(row),
                "backend_problem": _backend_problem(row),
                "live": live,
                "live_colour": colour,
                "live_word": word,
                "show_save_and_add_another": False,
            }
        response: HttpResponse = super().change_view(request, object_id, form_url, context)
        return response

    def save_model(self, request: HttpRequest, obj: SinkConfig, form: Any, change: bool) -> None:
        before = changes.as_it_was(obj)
        super().save_model(request, obj, form, change)
        changes.record(before, obj, who=_who(request))
        heart.nudge()

    def delete_model(self, request: HttpRequest, obj: SinkConfig) -> None:
        key, name = str(obj.pk), obj.name
        discarded = request.POST.get("backlog") == "discard"
        changes.record(obj, None, who=_who(request))
        super().delete_model(request, obj)
        if discarded:
            asked = backlog.discard(key)
            self.message_user(
                request,
                f"What waited for sink {name} is discarded within seconds, in "
                f"{asked} process{'' if asked == 1 else 'es'}, and counted as dropped.",
                level=messages.WARNING,
            )
        heart.nudge()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[SinkConfig]) -> None:
        for row in queryset:
            changes.record(row, None, who=_who(request))
        super().delete_queryset(request, queryset)
        heart.nudge()

    def get_urls(self) -> list[URLPattern]:
        views = (("pause", self.pause_view), ("resume", self.resume_view), ("test", self.test_view))
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"sinks_sinkconfig_{name}",
            )
            for name, view in views
        ]
        return [*own, *super().get_urls()]

    def pause_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._act(request, object_id, lambda rows: self._set_paused(request, rows, True))

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._act(request, object_id, lambda rows: self._set_paused(request, rows, False))

    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._act(request, object_id, lambda rows: self._try(request, rows.get()))

    # --- parts -----------------------------------------------------------------------------

    def _choose_backend(self, request: HttpRequest) -> HttpResponse:
        form = BackendForm(request.GET if "backend" in request.GET else None)
        context = {
            **self.admin_site.each_context(request),
            "title": "Add sink: which kind?",
            "opts": self.opts,
            "form": form,
            "backends": available_backends(),
        }
        return TemplateResponse(request, "admin/sinks/sinkconfig/choose_backend.html", context)

    def _backend(self, request: HttpRequest, row: SinkConfig | None) -> Backend | None:
        if row is not None:
            return _backend_of(row)
        try:
            return load_backend(request.GET.get("backend", ""))
        except BackendError:
            return None

    def _act(self, request: HttpRequest, object_id: str, act: Any) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        self._need_change(request)
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404("There is no such sink.")
        act(SinkConfig.objects.filter(pk=row.pk))
        return HttpResponseRedirect(reverse("admin:sinks_sinkconfig_change", args=[row.pk]))

    def _set_paused(self, request: HttpRequest, rows: QuerySet[SinkConfig], paused: bool) -> None:
        self._need_change(request)
        for row in rows:
            if row.paused == paused:
                self.message_user(request, f"Sink {row.name} was {_PAUSED[paused]} already.")
                continue
            before = changes.as_it_was(row)
            row.paused = paused
            with transaction.atomic():
                row.save(update_fields=["paused", "updated_at"])
                changes.record(before, row, who=_who(request))
            self.log_change(request, row, f"{_PAUSED[paused]}.".capitalize())
            self.message_user(request, f"Sink {row.name} is {_PAUSED[paused]}; {_MEANS[paused]}")
        heart.nudge()

    def _try(self, request: HttpRequest, row: SinkConfig) -> None:
        answer = try_sink(row)
        level = messages.SUCCESS if answer.works else messages.ERROR
        said = "works" if answer.works else "does not work"
        self.message_user(request, f"Sink {row.name} {said}: {answer.text}", level=level)

    def _need_change(self, request: HttpRequest) -> None:
        if not self.has_change_permission(request):
            raise PermissionDenied


def _tuning_set(group: Group, request: HttpRequest, row: SinkConfig | None) -> Any:
    """A group of the pipeline's settings: open where any is set (Django opens it for errors)."""
    stored = row.pipeline if row is not None else {}
    is_set = any(
        name in stored or request.POST.get(TUNING + name, "") not in UNSET for name in group.labels
    )
    return (
        f"Pipeline: {group.title.lower()}",
        {
            "fields": [TUNING + name for name in group.labels],
            "classes": ["tuning"] if is_set else ["tuning", "collapse"],
            "description": f"{group.about} Empty: as the installation has it, shown in grey.",
        },
    )


def _who(request: HttpRequest) -> str:
    return str(request.user.get_username())


_PAUSED = {True: "paused", False: "resumed"}
_MEANS = {
    True: "records are taken in and wait, in every process within seconds.",
    False: "what waited is delivered now.",
}


def _live(request: HttpRequest, row: SinkConfig) -> PipelineView | None:
    """What the living processes report of the row's pipeline."""
    pipelines = overview_for(request).pipelines
    return next((one for one in pipelines if one.key == str(row.pk)), None)


def _backend_of(row: SinkConfig) -> Backend | None:
    try:
        return load_backend(row.backend, row=row.name)
    except BackendError:
        return None


def _backend_problem(row: SinkConfig) -> str:
    try:
        load_backend(row.backend, row=row.name)
    except BackendError as error:
        return str(error)
    return ""


def _state(row: SinkConfig, live: PipelineView | None) -> tuple[str, str]:
    """A colour and a word: what processes report, or what the row alone tells."""
    if live is not None and live.misconfigured:
        return "bad", "misconfigured"
    if live is not None and live.failing:
        return "bad", "failing"
    if not row.enabled:
        waits = live is not None and live.in_flight
        return "idle", "disabled, delivering the rest" if waits else "disabled"
    if row.paused:
        return "idle", "paused"
    if live is None:
        young = timezone.now() - row.updated_at < STARTING
        return "idle", "starting…" if young else "no process reports it"
    return "good", live.state or "running"
