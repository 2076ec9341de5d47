"""Targets in the admin: the list, what is done to many, and the form that tries before it saves.

Runs in request threads.  Nothing here probes but the trial, after the transaction of the form:
no database waits for a service that hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    QueryDict,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone

from control.admin import register
from healthmon.admin import bulkwrites, overview, trial
from healthmon.admin.bulk import BulkActions
from healthmon.admin.targetform import DEFAULT_KIND, SCHEDULE, fieldsets, form_for, kind_fieldsets
from healthmon.admin.targetlist import TargetList, overview_url
from healthmon.heartbeats.secret import new_ping_secret, ping_path
from healthmon.probes.registry import KindError, kind_of
from healthmon.targets.models import Target
from healthmon.targets.options import plain_options
from sinks.optionform import OPTION
from sinks.secrets import SecretError

# A change of these is worth a look at once.
_PROBED_ANEW = {"kind", "address"}


@register(Target)
class TargetAdmin(BulkActions, TargetList):
    change_form_template = "admin/healthmon/target/change_form.html"

    # --- the form --------------------------------------------------------------------------

    def get_form(
        self, request: HttpRequest, obj: Target | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = form_for(_kind_name(request, obj))
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Target | None = None) -> Any:
        return fieldsets(form_for(_kind_name(request, obj)))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        initial.setdefault("owner", request.user.pk)
        return initial

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        response: HttpResponse = super().add_view(request, form_url, extra_context)
        self._tell_of_first_probe(request)
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        target = self.get_object(request, unquote(object_id))
        if target is not None and not self.has_change_permission(request, target):
            if not self.has_view_permission(request, target):
                raise PermissionDenied
            # Who may only look is shown what there is to see, not a form of dead fields.
            return HttpResponseRedirect(overview_url(target.pk))
        response: HttpResponse = super().change_view(request, object_id, form_url, extra_context)
        self._tell_of_first_probe(request)
        return response

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        anew = _PROBED_ANEW & set(form.changed_data)
        if anew or any(name.startswith(OPTION) for name in form.changed_data) or not change:
            request.collector_saved_target = form.instance  # type: ignore[attr-defined]

    def response_post_save_add(self, request: HttpRequest, obj: Target) -> HttpResponseRedirect:
        return HttpResponseRedirect(overview_url(obj.pk))

    def response_post_save_change(self, request: HttpRequest, obj: Target) -> HttpResponseRedirect:
        return HttpResponseRedirect(overview_url(obj.pk))

    def delete_model(self, request: HttpRequest, obj: Target) -> None:
        bulkwrites.delete([obj.pk])

    def _tell_of_first_probe(self, request: HttpRequest) -> None:
        target: Target | None = request.__dict__.pop("collector_saved_target", None)
        if target is None or target.paused:
            return
        found = _probe(target)
        if found.passive:
            if not target.ping_digest:
                self.message_user(
                    request,
                    "It is fed by pings: make its ping address on this page, and give it to the "
                    "job that is to ping.",
                )
            return
        level = messages.SUCCESS if found.outcome == "ok" else messages.WARNING
        self.message_user(request, f"A first probe of {target}: {found.words}.", level=level)

    # --- pages beside the form -------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        views: tuple[tuple[str, str, Callable[..., HttpResponse]], ...] = (
            ("fields/", "fields", self.fields_view),
            ("try/", "try", self.try_view),
            ("<int:object_id>/", "overview", self.overview_view),
            ("<int:object_id>/fields/", "fields_of", self.fields_view),
            ("<int:object_id>/try/", "try_of", self.try_view),
            ("<int:object_id>/run/", "run", self.run_view),
            ("<int:object_id>/pause/", "pause", self.pause_view),
            ("<int:object_id>/ping-address/", "ping_address", self.ping_address_view),
        )
        own = [
            path(route, self.admin_site.admin_view(view), name=f"healthmon_target_{name}")
            for route, name, view in views
        ]
        return [*own, *super().get_urls()]

    def overview_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        target = self._target(request, object_id)
        if not self.has_view_or_change_permission(request, target):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            **overview.context(target, request.GET, timezone.now(), request.user),
            "ping_address": f"{request.scheme}://{request.get_host()}{ping_path('<secret>')}",
            "opts": self.opts,
            "title": target.name,
            "may_change": self.has_change_permission(request, target),
        }
        return TemplateResponse(request, "admin/healthmon/target/overview.html", context)

    def fields_view(self, request: HttpRequest, object_id: int | None = None) -> HttpResponse:
        """The fields of the kind that was chosen, with what was typed where both kinds have it."""
        form = self._sent_form(request, object_id, bound=False)
        kind_form = AdminForm(form, kind_fieldsets(type(form)), {}, (), model_admin=self)
        context = {"adminform": kind_form, "opts": self.opts, "may_try": True}
        return TemplateResponse(request, "admin/healthmon/target/kind_fields.html", context)

    def try_view(self, request: HttpRequest, object_id: int | None = None) -> HttpResponse:
        form = self._sent_form(request, object_id, bound=True)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Try it",
            "trial": trial.try_form(form),
        }
        whole = "trial_page.html" if not request.headers.get("HX-Request") else "trial.html"
        return TemplateResponse(request, f"admin/healthmon/target/{whole}", context)

    def run_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        def act(target: Target) -> str:
            bulkwrites.update([target.pk], run_requested_at=timezone.now())
            return f"{target} is asked to be probed now."

        return self._act(request, object_id, act)

    def pause_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        def act(target: Target) -> str:
            paused = not target.paused
            bulkwrites.update([target.pk], paused=paused)
            return f"{target} is {'paused' if paused else 'resumed'}."

        return self._act(request, object_id, act)

    def ping_address_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        target = self._target(request, object_id)
        if not self.has_change_permission(request, target):
            raise PermissionDenied
        if not _is_passive(target):
            raise Http404("Only heartbeat targets have a ping address.")
        secret = new_ping_secret(target)
        self.log_change(request, target, "New ping address.")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Ping address of {target}",
            "target": target,
            "address": f"{request.scheme}://{request.get_host()}{ping_path(secret)}",
            "overview_url": overview_url(target.pk),
        }
        response = TemplateResponse(request, "admin/healthmon/target/ping_address.html", context)
        response["Cache-Control"] = "no-store"
        response["Referrer-Policy"] = "no-referrer"
        return response

    # --- parts -----------------------------------------------------------------------------

    def _act(
        self, request: HttpRequest, object_id: int, act: Callable[[Target], str]
    ) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        target = self._target(request, object_id)
        if not self.has_change_permission(request, target):
            raise PermissionDenied
        words = act(target)
        self.log_change(request, target, words)
        self.message_user(request, words, level=messages.SUCCESS)
        return HttpResponseRedirect(overview_url(target.pk))

    def _target(self, request: HttpRequest, object_id: int) -> Target:
        target: Target | None = self.get_object(request, unquote(str(object_id)))
        if target is None:
            raise Http404("There is no such target.")
        return target

    def _sent_form(self, request: HttpRequest, object_id: int | None, *, bound: bool) -> Any:
        """The form as it was sent, for a target that may not be there yet."""
        target = self._target(request, object_id) if object_id is not None else None
        allowed = (
            self.has_add_permission(request)
            if target is None
            else self.has_change_permission(request, target)
        )
        if request.method != "POST" or not allowed:
            raise PermissionDenied
        form_class = self.get_form(request, target, change=target is not None)
        if bound:
            data = request.POST.copy()
            data["kind_shown"] = data.get("kind", "")
            return form_class(data, instance=target)
        form = form_class(instance=target)
        _carry_over(form, request.POST)
        return form


def _kind_name(request: HttpRequest, target: Target | None) -> str:
    """The kind whose fields are wanted: the one being chosen, else the target's own."""
    sent: QueryDict = request.POST if request.method == "POST" else request.GET
    chosen = sent.get("kind", "") or (target.kind if target is not None else DEFAULT_KIND)
    try:
        kind_of(chosen)
    except KindError:
        return target.kind if target is not None else DEFAULT_KIND
    return chosen


def _carry_over(form: Any, sent: QueryDict) -> None:
    """Keep what was typed in fields of the same name; never a secret, which is not sent back."""
    secret = {OPTION + option.name for option in form.option_fields if option.kind == "secret"}
    for name in ("address", *SCHEDULE):
        if sent.get(name) and name in form.fields:
            form.initial[name] = sent[name]
    shown_before = sent.get("kind_shown", "")
    if shown_before == form.kind_name:
        for name in form.fields:
            if name.startswith(OPTION) and name in sent and name not in secret:
                form.initial[name] = sent[name]


def _is_passive(target: Target) -> bool:
    try:
        return kind_of(target.kind).probe is None
    except KindError:
        return False


def _probe(target: Target) -> trial.Trial:
    try:
        options = plain_options(target)
    except (KindError, SecretError) as error:
        return trial.Trial(problem=str(error))
    return trial.run(
        kind_of(target.kind),
        target.kind,
        target.address,
        options,
        timeout_s=target.timeout_s,
        degraded_after_ms=target.degraded_after_ms,
    )
