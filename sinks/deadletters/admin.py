"""Dead letters in the admin: the list, a letter with why and what to do, its correction.

Seeing needs the view permission, deciding the change permission.  Everything shown came from
outside: templates escape it and `inert` writes out what would change how it reads.  Runs in request
threads; holds no state.
"""

from __future__ import annotations

from typing import Any

import msgspec
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import KeysetModelAdmin, action, display, register
from control.admin.inert import inert, one_line
from control.admin.jsonview import json_html
from sinks.deadletters import decisions, pages
from sinks.deadletters.forms import ANY_STATE, LetterFilter, PayloadForm
from sinks.deadletters.models import (
    DISCARDED,
    EXPIRED,
    REDRIVEN,
    REDRIVING,
    WAITING,
    DeadLetter,
)

_TAGS = {WAITING: "warn", REDRIVING: "info", DISCARDED: "other", EXPIRED: "other"}
_WHY = {
    "permanent": "The sink refused this record for good: trying again changes nothing until the "
    "record or the sink is another.",
    "attempts": "It was tried as often as this sink's retry_max_attempts allows.",
    "age": "It was tried for as long as this sink's settings allow.",
}
_REMEDY = {
    "permanent": "If the error names a field, edit the payload. If it names the table, correct the "
    "table or its constraint. Then redrive.",
    "attempts": "See that the sink works again, then redrive. Without a limit of attempts, records "
    "wait in the log instead of here.",
    "age": "See that the sink works again, then redrive. Without a limit of age, records wait in "
    "the log instead of here.",
}
# What waits for nobody any more needs nothing.
_ENDED = {
    REDRIVING: "Nothing: it is on its way to the sink.",
    REDRIVEN: "Nothing: it was redriven, and the sink has it. What stands above was before.",
    DISCARDED: "Nothing: it was discarded.",
    EXPIRED: "Nothing: it waited for as long as dead letters are kept.",
}


@register(DeadLetter)
class DeadLetterAdmin(KeysetModelAdmin):
    filter_form_class = LetterFilter
    list_display = ("when", "sink_name", "why", "what", "service_name", "tenant_name", "state_tag")
    list_display_links = ("when",)
    actions = ("redrive_selected", "discard_selected")
    change_list_template = "admin/sinks/deadletter/list.html"

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)
        resolved = request.resolver_match
        if resolved is not None and str(resolved.url_name).endswith("_changelist"):
            queryset = queryset.defer("payload", "edited_payload", "exact", "message")
        return queryset

    # --- the list --------------------------------------------------------------------------

    @display(description="Entered (UTC)")
    def when(self, row: DeadLetter) -> str:
        return f"{row.entered_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Reason")
    def why(self, row: DeadLetter) -> str:
        return one_line(row.reason, limit=32)

    @display(description="Error")
    def what(self, row: DeadLetter) -> SafeString:
        return format_html('<div class="clamp">{}</div>', one_line(row.error, limit=400))

    @display(description="Service")
    def service_name(self, row: DeadLetter) -> str:
        return one_line(row.service, limit=40)

    @display(description="Tenant")
    def tenant_name(self, row: DeadLetter) -> str:
        return one_line(row.tenant, limit=40)

    @display(description="State")
    def state_tag(self, row: DeadLetter) -> SafeString:
        return _tag(row)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        query = request.GET.copy()
        state = query.pop("state", [""])[-1]
        for name in ("before", "after", "_changelist_filters"):
            query.pop(name, None)
        context = {
            "selection_query": query.urlencode(),
            "may_decide": self.has_change_permission(request),
            "shows_waiting": state in ("", WAITING, ANY_STATE),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    @action(description="Redrive the selected letters", permissions=["change"])
    def redrive_selected(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse:
        return _to_confirm("redrive", rows)

    @action(description="Discard the selected letters", permissions=["change"])
    def discard_selected(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse:
        return _to_confirm("discard", rows)

    # --- one letter ------------------------------------------------------------------------

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = self._row(request, object_id)
        context = {
            **self.admin_site.each_context(request),
            **(extra_context or {}),
            "opts": self.opts,
            "title": f"Dead letter {row.pk}",
            "letter": row,
            "state_tag": _tag(row),
            "may_decide": self.has_change_permission(request) and row.state == WAITING,
            "error": inert(row.error),
            "why": _WHY.get(row.reason, "The sink did not take it."),
            "remedy": _ENDED.get(row.state)
            or _REMEDY.get(row.reason, "Correct the sink or the payload, then redrive."),
            "message": inert(row.message),
            "facts": [(label, inert(str(text))) for label, text in _facts(row) if text],
            "payload": _shown(row.current_payload),
            "original": _shown(row.payload) if row.edited_payload else "",
        }
        return TemplateResponse(request, "admin/sinks/deadletter/detail.html", context)

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Correct the payload, or take a correction back."""
        row = self._row(request, object_id)
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        here = reverse("admin:sinks_deadletter_change", args=[row.pk])
        form = PayloadForm(request.POST or None, initial={"payload": _laid_out(row)})
        restoring = request.method == "POST" and "restore" in request.POST
        if request.method == "POST" and (restoring or form.is_valid()):
            text = row.payload if restoring else form.cleaned_data["payload"]
            try:
                decisions.edit(row.pk, text, who=request.user.get_username())
            except decisions.Refused as refused:
                form.add_error("payload", str(refused))
            else:
                done = "is as it was sent again" if restoring else "was edited; redrive it next"
                messages.success(request, f"The payload {done}.")
                return HttpResponseRedirect(here)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Edit the payload of dead letter {row.pk}",
            "letter": row,
            "form": form,
            "error": inert(row.error, limit=1_000),
        }
        return TemplateResponse(request, "admin/sinks/deadletter/edit.html", context)

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path("groups/", wrap(self._page(pages.groups)), name="sinks_deadletter_groups"),
            path("redrive/", wrap(self._page(pages.redrive)), name="sinks_deadletter_redrive"),
            path("discard/", wrap(self._page(pages.discard)), name="sinks_deadletter_discard"),
            path("<path:object_id>/edit/", wrap(self.edit_view), name="sinks_deadletter_edit"),
        ]
        return [*own, *super().get_urls()]

    def _page(self, page: Any) -> Any:
        def view(request: HttpRequest) -> HttpResponse:
            return page(self, request)  # type: ignore[no-any-return]

        return view

    def _row(self, request: HttpRequest, object_id: str) -> DeadLetter:
        row: DeadLetter | None = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404("There is no such letter; ended ones are forgotten after some days.")
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        return row


def _to_confirm(name: str, rows: QuerySet[Any]) -> HttpResponse:
    ids = ",".join(map(str, rows.order_by("pk").values_list("pk", flat=True)[:1_000]))
    return HttpResponseRedirect(f"{reverse(f'admin:sinks_deadletter_{name}')}?ids={ids}")


def _tag(row: DeadLetter) -> SafeString:
    return format_html('<span class="tag tag-{}">{}</span>', _TAGS.get(row.state, "up"), row.state)


def _facts(row: DeadLetter) -> list[tuple[str, Any]]:
    def at(moment: Any) -> str:
        return f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3] if moment else ""

    return [
        ("Sink", row.sink_name),
        ("Type", row.type),
        ("Tenant", row.tenant),
        ("Service", row.service),
        ("Record id", row.record_id),
        ("Time of the event", at(row.timestamp)),
        ("Received", at(row.received_at)),
        ("First tried", at(row.first_tried_at)),
        ("Last tried", at(row.last_tried_at)),
        ("Attempts", row.attempts),
        ("Redrives", row.redrives),
        ("Entered", at(row.entered_at)),
        ("Batch", row.batch_id),
        ("Came back from", row.origin),
        ("Request id", row.request_id),
        ("Trace id", row.trace_id),
        ("Span id", row.span_id),
        ("Traceparent", row.traceparent),
        ("Edited", f"{at(row.edited_at)} by {row.edited_by}" if row.edited_payload else ""),
    ]


def _shown(payload: str) -> SafeString:
    try:
        return json_html(msgspec.json.decode(payload))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return format_html('<pre class="json" tabindex="0">{}</pre>', inert(payload))


def _laid_out(row: DeadLetter) -> str:
    """The payload on several lines; its numbers and texts are left as they are."""
    try:
        return msgspec.json.format(row.current_payload.encode(), indent=2).decode()
    except (msgspec.DecodeError, RecursionError, ValueError):
        return row.current_payload
