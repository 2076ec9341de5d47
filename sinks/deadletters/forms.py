"""The filter bar over dead letters, and the forms of decisions.  Runs in request threads."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.http import QueryDict

from control.admin import FilterForm
from control.admin.widgets import MomentInput
from sinks.deadletters.models import STATES, WAITING, DeadLetter, DeadLetterTally
from sinks.deadletters.selection import MAX_IDS, Selection

ANY_STATE = "all"
# A text area sends line breaks as two characters, and shows what is laid out.
PAYLOAD_CHARACTERS = 16 * 1024 * 1024


def _text(label: str, length: int = 255) -> forms.CharField:
    widget = forms.TextInput(attrs={"autocomplete": "off"})
    return forms.CharField(required=False, label=label, max_length=length, widget=widget)


class LetterFilter(FilterForm):
    """What the list shows, and what a decision about all that it shows means."""

    q = forms.CharField(
        required=False,
        label="Search the error and the message",
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "autocomplete": "off"}),
    )
    state = forms.ChoiceField(
        required=False,
        choices=[*((state, state) for state in STATES), (ANY_STATE, "any state")],
        initial=WAITING,
    )
    sink = forms.ChoiceField(required=False)
    reason = _text("Reason", 32)
    type = _text("Type")
    tenant = _text("Tenant")
    since = forms.DateTimeField(required=False, label="From (UTC)", widget=MomentInput())
    until = forms.DateTimeField(required=False, label="To (UTC)", widget=MomentInput())
    pattern = forms.CharField(required=False, max_length=200, strip=False, widget=forms.HiddenInput)

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        if data is not None and not data.get("state"):
            data = data.copy()
            data["state"] = WAITING
        super().__init__(data, *args, **kwargs)
        known = DeadLetterTally.objects.values_list("sink", "sink_name")[:1_000]
        self.fields["sink"].choices = [("", "every sink"), *known]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        starts, ends = data.get("since"), data.get("until")
        if starts and ends and starts > ends:
            self.add_error("until", "This is before “from”.")
        return data

    def selection(self) -> Selection:
        """What the filter means, its state left out.  Call it on a valid form."""
        data = self.cleaned_data
        # Present and empty: letters without an error.
        pattern = data["pattern"] if "pattern" in self.data else None
        names = ("sink", "reason", "type", "tenant", "since", "until", "q")
        return Selection(pattern=pattern, **{name: data[name] for name in names})

    def apply(self, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        state = self.cleaned_data["state"]
        if state != ANY_STATE:
            queryset = queryset.filter(state=state)
        return self.selection().apply(queryset)

    def advice(self) -> str:
        return "Choose a sink or a reason; a search reads every letter."

    def empty_text(self) -> str:
        if self.cleaned_data.get("state") == WAITING:
            return "No dead letter waits here: nothing that fits has been refused for good."
        return "No dead letter fits these filters."


class PayloadForm(forms.Form):
    payload = forms.CharField(
        max_length=PAYLOAD_CHARACTERS,
        strip=False,
        label="Payload (one JSON object)",
        widget=forms.Textarea(
            attrs={"rows": 20, "class": "vLargeTextField", "spellcheck": "false"}
        ),
    )


class DiscardForm(forms.Form):
    reason = forms.CharField(
        label="Why",
        max_length=1_000,
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text="Kept with your name. A discarded record is not stored anywhere else.",
        error_messages={"required": "Say why: it is kept with your name."},
    )


def selection_of(query: QueryDict) -> Selection | None:
    """The selection that an address means: `ids`, or the fields of the filter; None if neither."""
    ids = query.get("ids", "")
    if ids:
        numbers = ids.split(",")[: MAX_IDS + 1]
        if len(numbers) > MAX_IDS or not all(one.isdecimal() and len(one) < 19 for one in numbers):
            return None
        return Selection(ids=tuple(map(int, numbers)))
    form = LetterFilter(query)
    return form.selection() if form.is_valid() else None
