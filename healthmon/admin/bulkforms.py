"""The forms of what is done to many targets at once.  What is left empty stays as it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.utils import timezone

from control.admin.widgets import MomentInput
from healthmon.admin.figures import latency_text, seconds_text
from healthmon.admin.targetform import TagsField
from healthmon.targets.models import SEVERITIES, Target, TargetGroup

SETTINGS = (
    "interval_s",
    "timeout_s",
    "retry_interval_s",
    "failure_threshold",
    "success_threshold",
    "degraded_after_ms",
    "severity",
)
IN_SECONDS = ("interval_s", "timeout_s", "retry_interval_s")
NO_GROUP = "-"


def setting_text(name: str, value: Any) -> str:
    if name == "degraded_after_ms":
        return latency_text(value) if value is not None else "never"
    return seconds_text(value) if name in IN_SECONDS else str(value)


def _like_the_model(name: str) -> forms.Field:
    """The model's own field, with its limits, and nothing in it."""
    model_field: Any = Target._meta.get_field(name)
    made: forms.Field | None = model_field.formfield(required=False, initial=None)
    assert made is not None
    made.initial = None
    made.help_text = ""
    made.required = False
    if name in IN_SECONDS:
        made.label = f"{made.label} (seconds)"
    elif name == "degraded_after_ms":
        made.label = "degraded after (ms)"
    return made


class SettingsForm(forms.Form):
    """Settings, group and tags of many targets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in SETTINGS[:-1]:
            self.fields[name] = _like_the_model(name)
        keep = [("", "as it is")]
        self.fields["severity"] = forms.ChoiceField(required=False, choices=[*keep, *SEVERITIES])
        groups = [(str(pk), name) for pk, name in TargetGroup.objects.values_list("pk", "name")]
        self.fields["group"] = forms.ChoiceField(
            required=False, choices=[*keep, (NO_GROUP, "no group"), *groups]
        )
        self.fields["add_tags"] = TagsField(
            required=False, label="Add tags", help_text="Divided by commas; new ones are made."
        )
        self.fields["remove_tags"] = TagsField(required=False, label="Remove tags")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        both = set(cleaned.get("add_tags") or ()) & set(cleaned.get("remove_tags") or ())
        if both:
            self.add_error("remove_tags", f"{', '.join(sorted(both))}: added and removed.")
        if not self.errors and not any(cleaned.values()):
            self.add_error(None, "Nothing is to be changed: fill in what should be.")
        return cleaned

    def wanted(self) -> dict[str, Any]:
        """The settings to change, as fields of the model."""
        cleaned = self.cleaned_data
        found = {name: cleaned[name] for name in SETTINGS if cleaned.get(name) not in (None, "")}
        if cleaned.get("group"):
            group = cleaned["group"]
            found["group_id"] = None if group == NO_GROUP else int(group)
        return found


class MaintenanceForm(forms.Form):
    """A window over the chosen targets."""

    title = forms.CharField(
        max_length=200, widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"})
    )
    starts_at = forms.DateTimeField(label="From (UTC)", widget=MomentInput())
    minutes = forms.IntegerField(
        label="Duration (minutes)", min_value=1, max_value=31 * 24 * 60, initial=60
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["starts_at"].initial = timezone.now().replace(second=0, microsecond=0)
        self.fields["title"].initial = "Maintenance"

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        starts, minutes = cleaned.get("starts_at"), cleaned.get("minutes")
        if starts and minutes and starts + timedelta(minutes=minutes) <= timezone.now():
            self.add_error("minutes", "This window is over already.")
        return cleaned


class NothingToSay(forms.Form):
    """For what needs no more than a yes."""
