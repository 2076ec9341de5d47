"""The filter bar over jobs: what the list shows, and what an action on all that match means.

Runs in request threads.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet

from control.admin import FilterForm
from control.admin.widgets import MomentInput
from jobs.admin.marks import REASON_WORDS
from jobs.bulk.selection import ALL_FINISHED, ALL_OPEN, ANY, Selection
from jobs.states import (
    ASKED,
    ATTEMPTS,
    DEADLINE,
    LOST,
    PERMANENT,
    STATES,
    TYPE,
)
from jobs.store.models import Job
from jobs.types.models import JobType

MAX_TYPES = 1_000
_REASONS = (PERMANENT, ATTEMPTS, DEADLINE, LOST, TYPE, ASKED)


def _text(label: str, length: int) -> forms.CharField:
    widget = forms.TextInput(attrs={"autocomplete": "off"})
    return forms.CharField(required=False, label=label, max_length=length, widget=widget)


class JobFilter(FilterForm):
    q = forms.CharField(
        required=False,
        label="Job id or correlation id",
        max_length=128,
        widget=forms.TextInput(attrs={"type": "search", "autocomplete": "off"}),
    )
    state = forms.ChoiceField(
        required=False,
        choices=[
            (ANY, "any"),
            *((state, state) for state in STATES),
            (ALL_OPEN, "not ended"),
            (ALL_FINISHED, "ended"),
        ],
    )
    type = forms.ChoiceField(required=False)
    reason = forms.ChoiceField(
        required=False, choices=[("", "any"), *((one, REASON_WORDS[one]) for one in _REASONS)]
    )
    correlation_id = _text("Correlation id", 128)
    service = _text("Service", 200)
    tenant = _text("Tenant", 63)
    schedule = _text("Schedule", 63)
    since = forms.DateTimeField(required=False, label="From (UTC)", widget=MomentInput())
    until = forms.DateTimeField(required=False, label="To (UTC)", widget=MomentInput())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = JobType.objects.values_list("name", flat=True)[:MAX_TYPES]
        self.fields["type"].choices = [  # type: ignore[attr-defined]
            ("", "any"),
            *((name, name) for name in names),
        ]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        starts, ends = data.get("since"), data.get("until")
        if starts and ends and starts > ends:
            self.add_error("until", "This is before “from”.")
        return data

    def selection(self) -> Selection:
        """Call it on a valid form."""
        return Selection(**{name: self.cleaned_data[name] for name in self.fields})

    def apply(self, queryset: QuerySet[Job]) -> QuerySet[Job]:
        return self.selection().apply(queryset)

    def advice(self) -> str:
        return "Choose a state, a type or a time: the rest is found among those."

    def empty_text(self) -> str:
        if not any(self.cleaned_data.values()):
            return "No job is kept. POST /jobs takes one in; so does the page of a type."
        return "No job fits these filters. Ended ones are forgotten after some days."
