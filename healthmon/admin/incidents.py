"""Incidents in the admin: open ones first, each with its cause, what to do, and its timeline.

Whoever may view may look; acknowledging, commenting and the postmortem need the change permission.
They are opened and closed by the `flips` sink alone.  Runs in request threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet
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
from control.admin.figures import duration
from control.admin.inert import one_line
from control.outbox.models import OutboxMessage
from healthmon.admin import statuses
from healthmon.admin.filters import ChoiceFilter, SeverityFilter
from healthmon.admin.overview import logs_context
from healthmon.admin.targetlist import overview_url
from healthmon.notify.models import Notice
from healthmon.truth import incidents as truth
from healthmon.truth.models import Incident

REMEDY_CHARS = 120
MESSAGES_SHOWN = 20


class OpenFilter(ChoiceFilter):
    title, parameter_name = "State", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("open", "open"), ("closed", "closed")]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(closed_at__isnull=value == "open")


class AcknowledgedFilter(ChoiceFilter):
    title, parameter_name = "Acknowledged", "acknowledged"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("yes", "yes"), ("no", "no")]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(acknowledged_at__isnull=value == "no")


class CommentForm(forms.Form):
    text = forms.CharField(
        label="Comment", max_length=truth.COMMENT_CHARS, widget=forms.Textarea(attrs={"rows": 3})
    )
    public = forms.BooleanField(label="Shown on status pages", required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The postmortem's form asks this, too: each label has a field of its own.
        super().__init__(*args, **{"auto_id": "id_comment_%s", **kwargs})


class PostmortemForm(forms.Form):
    postmortem = forms.CharField(
        label="What happened, and what is done about it",
        required=False,
        max_length=truth.POSTMORTEM_CHARS,
        widget=forms.Textarea(attrs={"rows": 6}),
    )
    public = forms.BooleanField(label="Shown on status pages", required=False)


@register(Incident)
class IncidentAdmin(ModelAdmin):
    list_display = ("what", "state", "opened", "lasted", "severity", "why", "remedy", "seen_to")
    list_display_links = None
    list_filter = (OpenFilter, AcknowledgedFilter, SeverityFilter)
    list_select_related = ("target", "acknowledged_by", "suppressed_by")
    search_fields = ("target__name", "cause")
    search_help_text = "Target or cause"
    show_full_result_count = False
    list_per_page = 100
    actions = ("acknowledge_chosen",)
    change_list_template = "admin/healthmon/change_list.html"

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # they go with their target, or when their days are over

    def get_ordering(self, request: HttpRequest) -> Any:
        return (F("closed_at").desc(nulls_first=True), "-opened_at")

    # --- the list --------------------------------------------------------------------------

    @display(description="Target", ordering="target__name")
    def what(self, row: Incident) -> SafeString:
        return format_html(
            '<a class="target-name" href="{}">{}</a>',
            reverse("admin:healthmon_incident_change", args=[row.pk]),
            one_line(row.target.name, limit=80),
        )

    @display(description="State", ordering="closed_at")
    def state(self, row: Incident) -> SafeString:
        return statuses.mark("down", word="open") if row.closed_at is None else _closed()

    @display(description="Since (UTC)", ordering="opened_at")
    def opened(self, row: Incident) -> str:
        return f"{row.opened_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Lasted")
    def lasted(self, row: Incident) -> str:
        return _lasted(row)

    @display(description="Cause")
    def why(self, row: Incident) -> SafeString:
        parent = (
            format_html("<small>alerts nobody: {} was down</small>", row.suppressed_by.name)
            if row.suppressed_by is not None
            else ""
        )
        return format_html('<div class="clamp">{}</div>{}', one_line(row.cause, limit=300), parent)

    @display(description="What to do")
    def remedy(self, row: Incident) -> str:
        return one_line(row.target.notes, limit=REMEDY_CHARS)

    @display(description="Acknowledged", ordering="acknowledged_at")
    def seen_to(self, row: Incident) -> str:
        if row.acknowledged_at is None:
            return "no" if row.closed_at is None else ""
        return f"{row.acknowledged_by or 'yes'}, {row.acknowledged_at:%m-%d %H:%M}"

    @action(description="Acknowledge", permissions=["change"])
    def acknowledge_chosen(self, request: HttpRequest, rows: QuerySet[Incident]) -> None:
        user: Any = request.user
        # Those that closed meanwhile need nobody.
        waiting = list(rows.filter(acknowledged_at=None, closed_at=None).order_by("pk")[:1_000])
        done = sum(truth.acknowledge(incident, user) for incident in waiting)
        self.message_user(
            request,
            f"{done} incident{'' if done == 1 else 's'} acknowledged: reminders end.",
            level=messages.SUCCESS,
        )

    # --- one incident ----------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        views = (
            ("acknowledge", self.acknowledge_view),
            ("comment", self.comment_view),
            ("postmortem", self.postmortem_view),
        )
        own = [
            path(
                f"<int:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"healthmon_incident_{name}",
            )
            for name, view in views
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        incident = self._incident(request, object_id)
        if not self.has_view_or_change_permission(request, incident):
            raise PermissionDenied
        return self._page(request, incident)

    def acknowledge_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        def act(incident: Incident) -> None:
            user: Any = request.user
            text = request.POST.get("text", "")[: truth.COMMENT_CHARS]
            if truth.acknowledge(incident, user, text=text):
                self.message_user(request, "Acknowledged: reminders end.", level=messages.SUCCESS)
            else:
                self.message_user(request, f"{incident.acknowledged_by} did so before.")

        return self._act(request, object_id, act)

    def comment_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        form = CommentForm(request.POST)

        def act(incident: Incident) -> HttpResponse | None:
            if not form.is_valid():
                return self._page(request, incident, comment_form=form)
            user: Any = request.user
            public = form.cleaned_data["public"]
            truth.comment(incident, user, form.cleaned_data["text"], public=public)
            where = ", and shown on status pages" if public else ""
            self.message_user(request, f"The comment is noted{where}.", level=messages.SUCCESS)
            return None

        return self._act(request, object_id, act)

    def postmortem_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        form = PostmortemForm(request.POST)

        def act(incident: Incident) -> HttpResponse | None:
            if not form.is_valid():
                return self._page(request, incident, postmortem_form=form)
            truth.write_postmortem(incident, form.cleaned_data["postmortem"])
            Incident.objects.filter(pk=incident.pk).update(public=form.cleaned_data["public"])
            self.log_change(request, incident, "Postmortem.")
            self.message_user(request, "The postmortem is saved.", level=messages.SUCCESS)
            return None

        return self._act(request, object_id, act)

    # --- parts -----------------------------------------------------------------------------

    def _page(
        self,
        request: HttpRequest,
        incident: Incident,
        *,
        comment_form: CommentForm | None = None,
        postmortem_form: PostmortemForm | None = None,
    ) -> HttpResponse:
        now = timezone.now()
        context = {
            **self.admin_site.each_context(request),
            **logs_context(incident.target, incident, now, request.user),
            "opts": self.opts,
            "title": f"Incident of {incident.target.name}",
            "incident": incident,
            "target": incident.target,
            "target_url": overview_url(incident.target_id),
            "lasted": _lasted(incident),
            "timeline": truth.timeline(incident),
            "told": told_of(incident) if _may_see_messages(request) else None,
            "may_change": self.has_change_permission(request, incident),
            "comment_form": comment_form or CommentForm(),
            "postmortem_form": postmortem_form
            or PostmortemForm(
                initial={"postmortem": incident.postmortem, "public": incident.public}
            ),
        }
        return TemplateResponse(request, "admin/healthmon/incident/detail.html", context)

    def _incident(self, request: HttpRequest, object_id: Any) -> Incident:
        incident: Incident | None = self.get_object(request, unquote(str(object_id)))
        if incident is None:
            raise Http404("There is no such incident.")
        return incident

    def _act(
        self, request: HttpRequest, object_id: int, act: Callable[[Incident], HttpResponse | None]
    ) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        incident = self._incident(request, object_id)
        if not self.has_change_permission(request, incident):
            raise PermissionDenied
        answered = act(incident)
        if answered is not None:
            return answered
        return HttpResponseRedirect(reverse("admin:healthmon_incident_change", args=[incident.pk]))


def told_of(incident: Incident) -> list[OutboxMessage]:
    """The messages that told of it, the newest first."""
    keys = Notice.objects.filter(incident=incident).exclude(message_key="")
    wanted = keys.order_by().values("message_key").distinct()
    return list(OutboxMessage.objects.filter(dedupe_key__in=wanted)[:MESSAGES_SHOWN])


def _may_see_messages(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.has_perm("control.view_outboxmessage"))


def _closed() -> SafeString:
    return format_html('<span class="quiet">{}</span>', "closed")


def _lasted(incident: Incident) -> str:
    ends = incident.closed_at or timezone.now()
    return duration((ends - incident.opened_at).total_seconds())
