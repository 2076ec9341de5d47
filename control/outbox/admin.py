"""Messages in the admin: those in trouble first, with every attempt; tried again or cancelled.

Runs in request threads.  Whoever may see messages may look; the actions need the permission to
change them.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http import HttpResponseNotAllowed as NotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, ReadOnlyMixin, action, display, register
from control.admin.inert import inert, one_line
from control.outbox import actions
from control.outbox.models import FAILED, SENDING, SENT, WAITING, OutboxMessage

CHANGE = "control.change_outboxmessage"
SHOWN_ATTEMPTS = 200
PAYLOAD_CHARS = 50_000
TROUBLE_FIRST = Case(
    When(state=FAILED, then=Value(0)),
    When(state=WAITING, attempts__gt=0, then=Value(1)),
    When(state__in=(WAITING, SENDING), then=Value(2)),
    default=Value(3),
    output_field=IntegerField(),
)


@register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("message", "state_word", "channel_name", "attempts", "made", "next", "error")
    list_filter = ("state", "channel_name")
    search_fields = ("subject", "dedupe_key")
    show_full_result_count = False
    actions = ("try_again", "cancel")

    def get_ordering(self, request: HttpRequest) -> Any:
        return (TROUBLE_FIRST.asc(), "-id")

    @display(description="Message")
    def message(self, row: OutboxMessage) -> str:
        return one_line(str(row), limit=120)

    @display(description="State", ordering="state")
    def state_word(self, row: OutboxMessage) -> SafeString:
        colour = {FAILED: "bad", SENT: "good"}.get(row.state, "idle")
        failing = row.state == WAITING and row.attempts
        return format_html(
            '<span class="dot dot-{}" aria-hidden="true"></span>{}',
            "bad" if failing else colour,
            "to be tried again" if failing else row.state,
        )

    @display(description="Made (UTC)", ordering="created_at")
    def made(self, row: OutboxMessage) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Next try (UTC)", ordering="next_at")
    def next(self, row: OutboxMessage) -> str:
        if row.state != WAITING:
            return self.get_empty_value_display()
        return f"{row.next_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Last error")
    def error(self, row: OutboxMessage) -> str:
        return one_line(row.last_error, limit=160) or self.get_empty_value_display()

    # --- actions ---------------------------------------------------------------------------

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(CHANGE))

    @action(description="Try the selected messages again", permissions=["decide"])
    def try_again(self, request: HttpRequest, rows: QuerySet[OutboxMessage]) -> None:
        self._retry(request, rows)

    @action(description="Cancel the selected messages", permissions=["decide"])
    def cancel(self, request: HttpRequest, rows: QuerySet[OutboxMessage]) -> None:
        self._cancel(request, rows)

    def retry_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._act(request, object_id, self._retry)

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._act(request, object_id, self._cancel)

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"control_outboxmessage_{name}",
            )
            for name, view in (("retry", self.retry_view), ("cancel", self.cancel_view))
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self._row(request, object_id)
        payload = json.dumps(row.payload, indent=2, ensure_ascii=False)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": one_line(str(row), limit=120),
            "row": row,
            "payload": inert(payload, limit=PAYLOAD_CHARS),
            "attempts": row.attempt_log.order_by("-pk")[:SHOWN_ATTEMPTS],
            "may_decide": self.has_decide_permission(request),
            "may_retry": row.state not in (SENT, SENDING),
            "may_cancel": row.state in (WAITING, FAILED),
        }
        return TemplateResponse(request, "admin/control/outboxmessage.html", context)

    # --- parts -----------------------------------------------------------------------------

    def _act(self, request: HttpRequest, object_id: str, act: Any) -> HttpResponse:
        if request.method != "POST":
            return NotAllowed(["POST"])
        if not self.has_decide_permission(request):
            raise PermissionDenied
        row = self._row(request, object_id)
        act(request, OutboxMessage.objects.filter(pk=row.pk))
        return HttpResponseRedirect(reverse("admin:control_outboxmessage_change", args=[row.pk]))

    def _retry(self, request: HttpRequest, rows: QuerySet[OutboxMessage]) -> None:
        pks = list(rows.values_list("pk", flat=True))
        self._say(request, actions.retry(pks, timezone.now()), len(pks), "tried again now")

    def _cancel(self, request: HttpRequest, rows: QuerySet[OutboxMessage]) -> None:
        pks = list(rows.values_list("pk", flat=True))
        self._say(request, actions.cancel(pks, timezone.now()), len(pks), "cancelled")

    def _say(self, request: HttpRequest, done: int, asked: int, what: str) -> None:
        left = asked - done
        text = f"{done} message{'' if done == 1 else 's'} {what}."
        if left:
            text += f" {left} could not be: sent, or being sent."
        self.message_user(request, text, level=messages.SUCCESS if done else messages.WARNING)

    def _row(self, request: HttpRequest, object_id: str) -> OutboxMessage:
        row: OutboxMessage | None = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404("There is no such message.")
        return row
