"""The filter bars over stored records.

The time window is of arrival, because ids are ordered by it: a window is a range of ids, which
prunes partitions on PostgreSQL and is the row key on SQLite. Values to choose from come from the
newest records, never from a DISTINCT over the table. Runs in request threads; holds no state.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django import forms
from django.db import connections
from django.db.models import Model, QuerySet
from django.utils import timezone

from control.admin import FilterForm
from control.admin.search import search
from control.admin.widgets import MomentInput
from pipeline.ids import first_id_at, time_of
from pipeline.record import LEVEL_NAMES

WINDOWS: dict[str, tuple[str, timedelta | None]] = {
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "24h": ("Last 24 hours", timedelta(hours=24)),
    "7d": ("Last 7 days", timedelta(days=7)),
    "all": ("All that is kept", None),
    "custom": ("From … to …", None),
}
DEFAULT_WINDOW = "24h"
LEVELS = [LEVEL_NAMES[severity] for severity in sorted(LEVEL_NAMES)]
SAMPLED = 2_000
MAX_VALUES = 100
# Records of one request have ids that follow each other, a large one in milliseconds ahead.
REQUEST_SPAN_US = 60_000_000


def _us(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def _datetime_field(label: str) -> forms.DateTimeField:
    return forms.DateTimeField(required=False, label=label, widget=MomentInput())


def _text_field(label: str, *, values: str = "") -> forms.CharField:
    attrs = {"autocomplete": "off", **({"list": f"values-{values}"} if values else {})}
    return forms.CharField(
        required=False, label=label, max_length=200, widget=forms.TextInput(attrs=attrs)
    )


class RecordFilter(FilterForm):
    """Time window and tenant, which every record has. Subclasses add their type's fields."""

    # Field of the form -> column matched exactly.
    exact: ClassVar[dict[str, str]] = {"tenant": "tenant"}
    # Columns whose recent values are offered while typing.
    offered: ClassVar[tuple[str, ...]] = ("tenant",)
    search_column: ClassVar[str] = ""
    # PostgreSQL has a words index on this model's search column.
    has_words_index: ClassVar[bool] = False

    window = forms.ChoiceField(
        required=False,
        label="Arrived",
        choices=[(key, words) for key, (words, _) in WINDOWS.items()],
        initial=DEFAULT_WINDOW,
    )

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        if data is not None and not data.get("window"):
            data = data.copy()
            data["window"] = "custom" if data.get("from") or data.get("to") else DEFAULT_WINDOW
        super().__init__(data, *args, **kwargs)
        # `from` is a word of Python's own, so these two cannot be class attributes.
        self.fields["from"] = _datetime_field("From (UTC)")
        self.fields["to"] = _datetime_field("To (UTC)")
        self.fields["with"] = forms.IntegerField(
            required=False, min_value=0, max_value=2**63 - 1, widget=forms.HiddenInput
        )
        self.add_fields()

    def add_fields(self) -> None:
        self.fields["tenant"] = _text_field("Tenant", values="tenant")

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        starts, ends = data.get("from"), data.get("to")
        if starts and ends and starts > ends:
            self.add_error("to", "This is before “from”.")
        if data.get("window") == "custom" and not starts and not ends and not self.errors:
            self.add_error("from", "Give a beginning or an end, or choose a window.")
        return data

    def bounds(self) -> tuple[int | None, int | None]:
        """The window as ids: from (inclusive), to (exclusive)."""
        data = self.cleaned_data
        window = data.get("window") or DEFAULT_WINDOW
        if window == "custom":
            starts, ends = data.get("from"), data.get("to")
            return (
                first_id_at(_us(starts)) if starts else None,
                # The last second is included: the field has no finer steps.
                first_id_at(_us(ends) + 1_000_000) if ends else None,
            )
        length = WINDOWS[window][1]
        if length is None:
            return None, None
        return first_id_at(_us(timezone.now() - length)), None

    def apply(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        lowest, beyond = self.bounds()
        if lowest is not None:
            queryset = queryset.filter(id__gte=lowest)
        if beyond is not None:
            queryset = queryset.filter(id__lt=beyond)
        data = self.cleaned_data
        for field, column in self.exact.items():
            if data.get(field):
                queryset = queryset.filter(**{column: data[field]})
        if data.get("with") is not None:
            queryset = self._same_request(queryset, data["with"])
        if self.search_column and data.get("q"):
            indexed = self.has_words_index and connections[queryset.db].vendor == "postgresql"
            queryset = search(queryset, self.search_column, data["q"], indexed=indexed)
        return queryset

    def _same_request(self, queryset: QuerySet[Any], record_id: int) -> QuerySet[Any]:
        """Records that came in one request share the time of arrival to the microsecond."""
        model: type[Model] = queryset.model
        known = model._default_manager.filter(pk=record_id).values_list("received_at", "tenant")
        row = known.first()
        if row is None:
            return queryset.none()
        at = time_of(record_id)
        return queryset.filter(
            id__gte=first_id_at(at - REQUEST_SPAN_US),
            id__lt=first_id_at(at + REQUEST_SPAN_US),
            received_at=row[0],
            tenant=row[1],
        )

    def recent_values(self, model: type[Model]) -> dict[str, list[str]]:
        """Values of the offered columns among the newest records."""
        rows = model._default_manager.order_by("-pk").values_list(*self.offered)[:SAMPLED]
        values: list[set[str]] = [set() for _ in self.offered]
        for row in rows:
            for found, value in zip(values, row, strict=True):
                if value and len(found) < MAX_VALUES:
                    found.add(value)
        return {name: sorted(found) for name, found in zip(self.offered, values, strict=True)}

    def advice(self) -> str:
        return (
            "Narrow the window, or filter by level, service or tenant. "
            "A word in the search is faster than ~text inside words."
        )

    def empty_text(self) -> str:
        window = self.cleaned_data.get("window") or DEFAULT_WINDOW
        words = WINDOWS[window][0].lower() if window != "custom" else "this window"
        hint = "Widen it or drop a filter."
        if self.cleaned_data.get("q"):
            hint += " The search finds words and their beginnings; write ~part to look inside."
        elif window == "all" and not any(self.cleaned_data.get(name) for name in self.exact):
            hint = "The operations page shows how to send the first one."
        return f"No record matches in {words}. {hint}"


class LogFilter(RecordFilter):
    exact: ClassVar[dict[str, str]] = {
        "service": "service",
        "tenant": "tenant",
        "trace_id": "trace_id",
    }
    offered: ClassVar[tuple[str, ...]] = ("service", "tenant")
    search_column = "message"
    has_words_index = True

    def add_fields(self) -> None:
        self.fields["level"] = forms.ChoiceField(
            required=False,
            label="Level",
            choices=[
                ("", "Any"),
                ("At least", [(f"min-{name}", f"{name} and above") for name in LEVELS[1:]]),
                ("Exactly", [(name, f"Only {name}") for name in LEVELS]),
            ],
        )
        self.fields["service"] = _text_field("Service", values="service")
        super().add_fields()
        self.fields["trace_id"] = _text_field("Trace id")
        self.fields["q"] = forms.CharField(
            required=False,
            label="Search the message",
            max_length=500,
            widget=forms.TextInput(
                attrs={
                    "type": "search",
                    "placeholder": 'word  "a phrase"  -without  ~inside',
                    "autocomplete": "off",
                }
            ),
        )
        self.order_fields(
            ["q", "window", "from", "to", "level", "service", "tenant", "trace_id", "with"]
        )

    def apply(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        queryset = super().apply(queryset)
        level = self.cleaned_data.get("level") or ""
        if level.startswith("min-"):
            lowest = LEVELS.index(level.removeprefix("min-"))
            return queryset.filter(level__in=LEVELS[lowest:])
        return queryset.filter(level=level) if level else queryset


class HealthFilter(RecordFilter):
    exact: ClassVar[dict[str, str]] = {"service": "service", "tenant": "tenant", "status": "status"}
    offered: ClassVar[tuple[str, ...]] = ("service", "tenant")

    def add_fields(self) -> None:
        self.fields["status"] = forms.ChoiceField(
            required=False,
            label="Status",
            choices=[("", "Any"), ("up", "up"), ("degraded", "degraded"), ("down", "down")],
        )
        self.fields["service"] = _text_field("Service", values="service")
        super().add_fields()


class AuditFilter(RecordFilter):
    exact: ClassVar[dict[str, str]] = {"user": "user_id", "action": "action", "tenant": "tenant"}
    offered: ClassVar[tuple[str, ...]] = ("user_id", "action", "tenant")

    def add_fields(self) -> None:
        self.fields["user"] = _text_field("User", values="user_id")
        self.fields["action"] = _text_field("Action", values="action")
        super().add_fields()


def around(record_id: int, *, minutes: int) -> dict[str, str]:
    """A window of arrival around a record, as parameters of its list."""
    at = datetime.fromtimestamp(time_of(record_id) / 1e6, tz=UTC)
    span = timedelta(minutes=minutes)
    return {
        "window": "custom",
        "from": f"{timezone.localtime(at - span):%Y-%m-%dT%H:%M:%S}",
        "to": f"{timezone.localtime(at + span):%Y-%m-%dT%H:%M:%S}",
    }
