"""Logs, health pings and audit events in the admin: read-only lists and a page for each record.

Everything shown came from outside: templates escape it, and `inert` writes out the characters that
would change how other text reads. Runs in request threads; holds no state.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.admin import KeysetModelAdmin, ReadOnlyMixin, display, register
from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from control.admin.figures import duration
from control.admin.inert import inert, one_line
from control.admin.jsonview import json_html
from ingest.admin.filters import AuditFilter, HealthFilter, LogFilter, RecordFilter, around
from ingest.models import AuditEvent, HealthPing, LogRecord, StoredRecord

MESSAGE_IN_LIST = 400
NAME_IN_LIST = 40
# A level or a status is a word of ours; anything else is shown without a colour of its own.
TAGS = frozenset({"trace", "debug", "info", "warn", "error", "fatal", "up", "degraded", "down"})


def tag(word: str) -> SafeString:
    kind = word.lower() if word.lower() in TAGS else "other"
    return format_html('<span class="tag tag-{}">{}</span>', kind, one_line(word, limit=20))


def clamped(text: str) -> SafeString:
    return format_html('<div class="clamp">{}</div>', text)


def when(moment: Any) -> str:
    local = timezone.localtime(moment)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"


class RecordAdmin(ReadOnlyMixin, KeysetModelAdmin):
    """What the three have in common."""

    actions = None
    change_form_template = "admin/ingest/record_detail.html"
    change_list_template = "admin/ingest/record_list.html"
    filter_form_class: ClassVar[type[RecordFilter]] = RecordFilter
    # (label, attribute) of the record page; the time of the event and of arrival come first.
    facts: ClassVar[tuple[tuple[str, str], ...]] = ()
    text_attribute: ClassVar[str] = ""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)
        # A list of records never shows payloads, which can be 1 MiB each.
        resolved = request.resolver_match
        if resolved is not None and str(resolved.url_name).endswith("_changelist"):
            queryset = queryset.defer("payload")
        return queryset

    @display(description="Time (UTC)")
    def when(self, record: StoredRecord) -> str:
        return when(record.timestamp)

    @display(description="Service")
    def service_name(self, record: Any) -> str:
        return one_line(record.service, limit=NAME_IN_LIST)

    @display(description="Tenant")
    def tenant_name(self, record: StoredRecord) -> str:
        return one_line(record.tenant, limit=NAME_IN_LIST)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        context = {**self.offered_values(), **(extra_context or {})}
        return super().changelist_view(request, context)

    def offered_values(self) -> dict[str, Any]:
        form = self.filter_form_class()
        try:
            with query_deadline(self.model._default_manager.all().db, 1.0):
                return {"offered": form.recent_values(self.model)}
        except QueryDeadlineExceeded:
            return {"offered": {}}

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> Any:
        record = context.get("original")
        if record is not None:
            context.update(self.record_context(record))
        return super().render_change_form(request, context, *args, **kwargs)

    def record_context(self, record: Any) -> dict[str, Any]:
        facts = [
            ("Time", when(record.timestamp)),
            ("Received", self.received(record)),
            *((label, inert(str(getattr(record, name)))) for label, name in self.facts),
            ("Tenant", inert(record.tenant)),
            ("Record id", str(record.pk)),
        ]
        text = inert(getattr(record, self.text_attribute)) if self.text_attribute else ""
        return {
            "record": record,
            "title": f"{str(self.opts.verbose_name).capitalize()} {record.pk}",
            "subtitle": None,
            "list_url": self.list_link({}),
            "facts": [(label, value) for label, value in facts if value],
            "text": text,
            "payload": json_html(record.payload),
            "neighbours": [
                (words, self.list_link(params)) for words, params in self.neighbours(record)
            ],
        }

    def received(self, record: StoredRecord) -> str:
        behind = (record.received_at - record.timestamp).total_seconds()
        if abs(behind) < 1:
            return when(record.received_at)
        word = "after" if behind > 0 else "before"
        return f"{when(record.received_at)} ({duration(abs(behind))} {word} its time)"

    def neighbours(self, record: Any) -> list[tuple[str, dict[str, str]]]:
        found = [
            ("Same request", {**around(record.pk, minutes=1), "with": str(record.pk)}),
            ("Same minute", around(record.pk, minutes=1)),
        ]
        service = getattr(record, "service", "")
        if service:
            name = one_line(service, limit=NAME_IN_LIST)
            params = {**around(record.pk, minutes=15), "service": service}
            found.insert(0, (f"{name}, 15 minutes around", params))
        return found

    def list_link(self, params: dict[str, str]) -> str:
        address = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        return f"{address}?{urlencode(params, errors='replace')}" if params else address


@register(LogRecord)
class LogRecordAdmin(RecordAdmin):
    filter_form_class = LogFilter
    list_display = ("when", "level_tag", "service_name", "what", "tenant_name")
    list_display_links = ("when",)
    text_attribute = "message"
    facts = (
        ("Level", "level"),
        ("Service", "service"),
        ("Trace id", "trace_id"),
        ("Span id", "span_id"),
    )

    @display(description="Level")
    def level_tag(self, record: LogRecord) -> SafeString:
        return tag(record.level)

    @display(description="Message")
    def what(self, record: LogRecord) -> SafeString:
        return clamped(one_line(record.message, limit=MESSAGE_IN_LIST))

    def neighbours(self, record: LogRecord) -> list[tuple[str, dict[str, str]]]:
        found = super().neighbours(record)
        if record.trace_id:
            # A trace's records arrive close together; an hour is generous.
            params = {**around(record.pk, minutes=60), "trace_id": record.trace_id}
            found.insert(0, (f"Trace {one_line(record.trace_id, limit=32)}", params))
        return found


@register(HealthPing)
class HealthPingAdmin(RecordAdmin):
    filter_form_class = HealthFilter
    list_display = ("when", "status_tag", "service_name", "took", "tenant_name")
    list_display_links = ("when",)
    facts = (("Status", "status"), ("Service", "service"), ("Latency in ms", "latency_ms"))

    @display(description="Status")
    def status_tag(self, ping: HealthPing) -> SafeString:
        return tag(ping.status)

    @display(description="Latency")
    def took(self, ping: HealthPing) -> str:
        return duration(ping.latency_ms / 1000 if ping.latency_ms is not None else None)


@register(AuditEvent)
class AuditEventAdmin(RecordAdmin):
    filter_form_class = AuditFilter
    list_display = ("when", "user", "what", "tenant_name")
    list_display_links = ("when",)
    facts = (("User", "user_id"), ("Action", "action"))

    @display(description="User")
    def user(self, event: AuditEvent) -> str:
        return one_line(event.user_id, limit=NAME_IN_LIST)

    @display(description="Action")
    def what(self, event: AuditEvent) -> SafeString:
        return clamped(one_line(event.action, limit=MESSAGE_IN_LIST))

    def neighbours(self, event: AuditEvent) -> list[tuple[str, dict[str, str]]]:
        found = super().neighbours(event)
        name = one_line(event.user_id, limit=NAME_IN_LIST)
        params = {**around(event.pk, minutes=15), "user": event.user_id}
        return [(f"{name}, 15 minutes around", params), *found]
