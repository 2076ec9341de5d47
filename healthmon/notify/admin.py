"""Channels and rules in the admin: added in two steps, tried by a button, with how they do.

Runs in request threads.  The trial sends at once, past the outbox, and shows what was answered.
"""

from __future__ import annotations

import uuid
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
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, display, register
from control.admin.figures import duration
from control.outbox.models import FAILED, WAITING, OutboxMessage
from healthmon.notify.composing import SENDER
from healthmon.notify.firstrule import make_first_rule
from healthmon.notify.forms import ChannelForm, KindForm, RuleForm, form_for
from healthmon.notify.kind import ChannelKind
from healthmon.notify.models import Channel, NotificationRule
from healthmon.notify.options import problems
from healthmon.notify.registry import KindError, kind_of, kinds
from healthmon.notify.sender import send_to, trial
from pipeline.errors import SinkError
from sinks.optionform import OPTION

RECENT_MESSAGES = 10
ADD_RULE = "healthmon.add_notificationrule"


@register(Channel)
class ChannelAdmin(ModelAdmin):
    form = ChannelForm
    list_display = ("name", "kind_label", "state", "used_by")
    list_filter = ("enabled", "kind")
    search_fields = ("name",)
    change_list_template = "admin/change_list.html"
    change_form_template = "admin/healthmon/channel/change_form.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("rules")

    @display(description="Kind", ordering="kind")
    def kind_label(self, row: Channel) -> str:
        kind = _kind(row.kind)
        return kind.label if kind is not None else row.kind

    @display(description="State")
    def state(self, row: Channel) -> SafeString:
        colour, word = _state(row)
        return format_html('<span class="dot dot-{}" aria-hidden="true"></span>{}', colour, word)

    @display(description="Rules")
    def used_by(self, row: Channel) -> str:
        return ", ".join(rule.name for rule in row.rules.all()) or untold(row)

    # --- one channel -----------------------------------------------------------------------

    def get_form(
        self, request: HttpRequest, obj: Channel | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = form_for(*self._chosen(request, obj))
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        made = form_for(*self._chosen(request, obj))
        options = [OPTION + option.name for option in made.option_fields]
        sets: list[Any] = [(None, {"fields": ["name", "enabled", "rate_per_minute"]})]
        if options:
            sets.append(("Options", {"fields": options}))
        return sets

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Without a kind in the address, the first step: which one."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        _, kind = self._chosen(request, None)
        if kind is None:
            return self._choose_kind(request)
        context = {
            **(extra_context or {}),
            "kind": kind,
            "title": f"Add channel: {kind.label}",
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
            colour, word = _state(row)
            context |= {
                "kind": _kind(row.kind),
                "problem": " ".join(problems(row).values()),
                "live_colour": colour,
                "live_word": word,
                "untold": untold(row),
                "rule_url": _rule_url(row) if request.user.has_perm(ADD_RULE) else "",
                "recent": _messages(row).order_by("-pk")[:RECENT_MESSAGES],
                "show_save_and_add_another": False,
            }
        response: HttpResponse = super().change_view(request, object_id, form_url, context)
        return response

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        rule = None if change else make_first_rule(obj)
        if rule is None and not change and untold(obj):
            self.message_user(
                request,
                format_html(
                    'No rule names {}: it is told nothing. <a href="{}">Make a rule for it</a>.',
                    obj.name,
                    _rule_url(obj),
                ),
                level=messages.WARNING,
            )
        if rule is not None:
            self.message_user(
                request,
                f"The rule “{rule.name}” was made with it, as there was none: {obj.name} is told "
                "of every target. Change it under notification rules.",
            )

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<path:object_id>/test/",
            self.admin_site.admin_view(self.test_view),
            name="healthmon_channel_test",
        )
        return [own, *super().get_urls()]

    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send a test now, and say what was answered."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404("There is no such channel.")
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        began = timezone.now()
        try:
            said = send_to(
                row, trial(row), key=f"test:{uuid.uuid4().hex}", now_s=int(began.timestamp())
            )
        except SinkError as error:
            messages.error(request, f"The test did not arrive at {row.name}: {error}")
        else:
            took = duration((timezone.now() - began).total_seconds())
            messages.success(request, f"The test was sent to {row.name} in {took}: {said}")
        self.log_change(request, row, "Tested.")
        return HttpResponseRedirect(reverse("admin:healthmon_channel_change", args=[row.pk]))

    # --- parts -----------------------------------------------------------------------------

    def _choose_kind(self, request: HttpRequest) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Add channel: which kind?",
            "opts": self.opts,
            "form": KindForm(request.GET if "kind" in request.GET else None),
            "kinds": kinds(),
        }
        return TemplateResponse(request, "admin/healthmon/channel/choose_kind.html", context)

    def _chosen(self, request: HttpRequest, row: Channel | None) -> tuple[str, ChannelKind | None]:
        name = row.kind if row is not None else request.GET.get("kind", "")
        return name, _kind(name)


@register(NotificationRule)
class NotificationRuleAdmin(ModelAdmin):
    form = RuleForm
    list_display = ("name", "enabled", "tells_of", "targets", "tells", "quiet")
    list_filter = ("enabled", "channels")
    search_fields = ("name",)
    filter_horizontal = ("tags", "groups")
    change_list_template = "admin/change_list.html"
    fieldsets = (
        (None, {"fields": ("name", "enabled", "channels")}),
        ("What is told", {"fields": ("events", "min_severity", "tags", "groups")}),
        ("When", {"fields": ("group_wait_s", "reminder_every_s")}),
        ("Quiet hours", {"fields": ("quiet_from", "quiet_until", "time_zone")}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("channels", "tags", "groups")

    @display(description="Tells of")
    def tells_of(self, row: NotificationRule) -> str:
        return ", ".join(map(str, row.events)) or "nothing"

    @display(description="Targets")
    def targets(self, row: NotificationRule) -> str:
        parts = [f"tag {tag}" for tag in row.tags.all()]
        parts += [f"group {group}" for group in row.groups.all()]
        least = "" if row.min_severity == "info" else f"; {row.min_severity} and above"
        return (", ".join(parts) or "all") + least

    @display(description="To")
    def tells(self, row: NotificationRule) -> str:
        return ", ".join(channel.name for channel in row.channels.all()) or "nobody"

    @display(description="Quiet hours")
    def quiet(self, row: NotificationRule) -> str:
        if row.quiet_from is None or row.quiet_until is None:
            return self.get_empty_value_display()
        return f"{row.quiet_from:%H:%M} to {row.quiet_until:%H:%M} {row.time_zone}"


def _kind(name: str) -> ChannelKind | None:
    try:
        return kind_of(name)
    except KindError:
        return None


def _state(row: Channel) -> tuple[str, str]:
    """A colour and a word, from the row and its messages."""
    if problems(row):
        return "bad", "misconfigured"
    if not row.enabled:
        return "idle", "switched off"
    of_row = _messages(row)
    failing = of_row.filter(state=WAITING, attempts__gt=0).count()
    if failing:
        return "bad", f"failing, {failing} wait"
    if of_row.filter(state=FAILED).exists():
        return "bad", "has messages that failed"
    if untold(row):
        return "idle", "ready, but told nothing"
    return "good", "ready"


def untold(row: Channel) -> str:
    """Why it is told nothing, whatever happens; "" when a rule tells it."""
    rules = list(row.rules.all())
    if any(rule.enabled for rule in rules):
        return ""
    return "none is switched on: it is told nothing" if rules else "none: it is told nothing"


def _rule_url(row: Channel) -> str:
    """Where a rule is made that names the channel."""
    return f"{reverse('admin:healthmon_notificationrule_add')}?channels={row.pk}"


def _messages(row: Channel) -> Any:
    return OutboxMessage.objects.filter(sender=SENDER, channel=str(row.pk))
