"""The forms of channels and rules.  A channel's is made from its kind's typed options.

A class is made per kind and request; nothing is kept.
"""

from __future__ import annotations

from typing import Any, ClassVar
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.core.exceptions import ValidationError

from healthmon.notify.kind import ChannelKind
from healthmon.notify.models import EVENTS, REMINDER, Channel, NotificationRule
from healthmon.notify.options import plain_options, set_options
from healthmon.notify.registry import kinds
from sinks.optionform import OPTION, OptionsForm, form_fields
from sinks.options import describe_options

MOST_MINUTES = 30 * 24 * 60
_WORDS = {
    "down": "down", "recovered": "recovered, to those who were told",
    "degraded": "degraded", "unknown": "unknown (it could not be judged)",
    "flapping": "flapping", "slo": "an objective at risk",
    "certificate": "a certificate that expires",
}  # fmt: skip


# An address has to be seen while it is typed; what is wrong with it would only be found by a test.
_SEEN = frozenset({"url"})


class SeenOnceInput(forms.PasswordInput):
    """Shows a secret while it is typed, and never what was typed before."""

    input_type = "text"


class MinutesField(forms.FloatField):
    """Minutes for people, whole seconds for the row."""

    def to_python(self, value: Any) -> Any:
        minutes = super().to_python(value)
        if minutes is None:
            return None
        if not 0 <= minutes <= MOST_MINUTES:  # nor is what is no number
            raise ValidationError(f"Between 0 and {MOST_MINUTES} minutes, which are 30 days.")
        return round(minutes * 60)

    def prepare_value(self, value: Any) -> Any:
        # What was typed comes back as it was; a number is the row's.
        return f"{value / 60:g}" if isinstance(value, int | float) else value


class KindForm(forms.Form):
    """The first step of adding: which kind of channel."""

    kind = forms.ChoiceField(widget=forms.RadioSelect)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(name, kind.label) for name, kind in kinds()]
        self.fields["kind"].choices = choices  # type: ignore[attr-defined]


class ChannelForm(OptionsForm):
    """What every channel has; the fields of the kind's options are added by `form_for`."""

    kind_name: ClassVar[str] = ""

    class Meta:
        model = Channel
        fields = ("name", "enabled", "rate_per_minute")
        help_texts: ClassVar[dict[str, str]] = {
            "rate_per_minute": "At most so many messages a minute from each process that sends; "
            "the server and every checker do, and each counts for itself."
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.kind_name and self.instance._state.adding:
            self.instance.kind = self.kind_name

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.option_fields and not self.errors:
            self.clean_options(cleaned)
        return cleaned

    def save(self, commit: bool = True) -> Any:
        if self.kind_name:
            set_options(self.instance, self.option_values, keep=self.kept_secrets)
        return super().save(commit)

    def stored_options(self) -> dict[str, Any]:
        return plain_options(self.instance)


def form_for(name: str, kind: ChannelKind | None) -> type[ChannelForm]:
    """The form of a kind; without one (it cannot be imported) only what all channels share."""
    if kind is None:
        return ChannelForm
    options = describe_options(kind.Options)
    fields = form_fields(options, label=_label)
    for option in options:
        if option.kind == "secret" and option.name in _SEEN:
            fields[OPTION + option.name].widget = SeenOnceInput(
                attrs={"autocomplete": "off", "spellcheck": "false", "class": "vTextField"}
            )
    made: type[ChannelForm] = type(
        "ChannelForm",
        (ChannelForm,),
        {
            **fields,
            "kind_name": name,
            "option_struct": kind.Options,
            "option_fields": options,
        },
    )
    return made


class RuleForm(forms.ModelForm[NotificationRule]):
    events = forms.MultipleChoiceField(
        choices=[(event, _WORDS[event]) for event in EVENTS if event != REMINDER],
        widget=forms.CheckboxSelectMultiple,
        label="Tell of",
    )
    reminder_every_s = MinutesField(
        label="Remind every",
        initial=0,
        help_text="Minutes between reminders of an open incident that nobody has acknowledged. "
        "0: none.",
    )
    time_zone = forms.CharField(
        label="Time zone", initial="UTC", help_text="Of the quiet hours; such as Europe/Berlin."
    )

    class Meta:
        model = NotificationRule
        fields = (
            "name", "enabled", "channels", "events", "min_severity", "tags", "groups",
            "group_wait_s", "reminder_every_s", "quiet_from", "quiet_until", "time_zone",
        )  # fmt: skip
        labels: ClassVar[dict[str, str]] = {
            "min_severity": "Least severity",
            "group_wait_s": "Wait for more",
            "quiet_from": "Quiet from",
            "quiet_until": "Quiet until",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "group_wait_s": "Seconds to wait for more of the same, to be told in one message. More "
            "of it within ten minutes waits twice as long each time, up to two minutes. "
            "0: everything is told at once.",
            "quiet_from": "Local time. What happens in quiet hours is told in one message at "
            "their end.",
        }

    def clean_time_zone(self) -> str:
        name: str = self.cleaned_data["time_zone"].strip()
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            near = [zone for zone in sorted(available_timezones()) if name.lower() in zone.lower()]
            hint = f" Did you mean {near[0]}?" if name and near else ""
            raise ValidationError(f"There is no such time zone.{hint}") from None
        return name

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        begins, ends = cleaned.get("quiet_from"), cleaned.get("quiet_until")
        if (begins is None) != (ends is None) and not {"quiet_from", "quiet_until"} & set(
            self.errors
        ):
            self.add_error("quiet_until", "Quiet hours need both times, or neither.")
        elif begins is not None and begins == ends:
            self.add_error("quiet_until", "The same time twice is no quiet hours at all.")
        return cleaned


def _label(name: str) -> str:
    words = name.replace("_", " ").capitalize()
    return words.replace("tls", "TLS").replace("Url", "URL")
