"""The form of a target: what every target has, and the fields of its kind's typed options.

The kind's fields are swapped when another kind is chosen; without scripts the form is shown again
with them.  A class is made per kind and request; nothing is kept.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from healthmon.probes.kind import ProbeKind
from healthmon.probes.registry import KindError, kind_names, kind_of
from healthmon.targets.models import Tag, Target
from healthmon.targets.options import plain_options, problems, set_options
from sinks.optionform import OPTION, LinesField, OptionsForm, form_fields
from sinks.options import OptionField, describe_options

DEFAULT_KIND = "http"
MAX_TAGS, MAX_PARENTS, MAX_DEPTH = 50, 50, 32
# What only those have that are probed.
OF_PROBES = ("timeout_s", "degraded_after_ms", "failure_threshold", "success_threshold",
             "retry_interval_s")  # fmt: skip
_IN_FLOATS = ("interval_s", "timeout_s", "retry_interval_s", "degraded_after_ms")
# What an operator sets first; the rest of a kind's options is folded away.
OPTIONS_SHOWN = 5
FIRST = ("method", "expected_status", "body_contains", "record_type", "server", "expect", "match",
         "follow_redirects", "verify_tls", "cron", "time_zone", "grace_s")  # fmt: skip
_INITIALS = ("url", "tls", "dns", "http", "json", "ip", "sni", "icmp", "tcp")
_UNITS = {"s": "seconds", "ms": "milliseconds", "days": "days", "bytes": "bytes"}


def label(name: str) -> str:
    """`max_latency_ms` as "Max latency (milliseconds)"."""
    words, _, unit = name.rpartition("_")
    if words and unit in _UNITS:
        return _words(f"{words.replace('_', ' ')} ({_UNITS[unit]})")
    return _words(name.replace("_", " "))


def _words(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return re.sub(rf"\b({'|'.join(_INITIALS)})\b", lambda found: found[0].upper(), text, flags=re.I)


class TagsField(forms.CharField):
    """Names of tags, divided by commas; those that do not exist are made."""

    def to_python(self, value: Any) -> Any:
        names = [name.strip() for name in re.split(r"[,\n]", super().to_python(value) or "")]
        return list(dict.fromkeys(filter(None, names)))

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list | tuple) else value

    def validate(self, value: Any) -> None:
        super().validate(value)
        if len(value) > MAX_TAGS:
            raise ValidationError(f"At most {MAX_TAGS} tags.")
        longest = Tag._meta.get_field("name").max_length or 63
        for name in value:
            if len(name) > longest:
                raise ValidationError(f"{name[:20]}…: a tag has at most {longest} characters.")


def tags_named(names: list[str]) -> list[Tag]:
    """The tags of these names; what does not exist is made."""
    Tag.objects.bulk_create([Tag(name=name) for name in names], ignore_conflicts=True)
    return list(Tag.objects.filter(name__in=names))


class TargetForm(OptionsForm):
    kind = forms.ChoiceField(label="Kind", help_text="How it is probed.")
    # The kind whose options the form shows.
    kind_shown = forms.CharField(widget=forms.HiddenInput, required=False, max_length=200)
    tag_names = TagsField(
        label="Tags",
        required=False,
        max_length=4_000,
        help_text="Divided by commas; new ones are made.",
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )
    parent_names = LinesField(
        label="Parents",
        required=False,
        max_length=20_000,
        help_text="Names of targets, one a line. While one of them is down, this target is "
        "watched but alerts nobody.",
    )

    probe_kind: ClassVar[ProbeKind | None] = None
    kind_name: ClassVar[str] = ""

    class Meta:
        model = Target
        labels: ClassVar[dict[str, str]] = {
            "degraded_after_ms": "Degraded after (ms)",
            "slo_percent": "Objective (percent)",
            "slo_days": "Objective's window (days)",
            "interval_s": "Interval (seconds)",
            "timeout_s": "Timeout (seconds)",
            "retry_interval_s": "Retry interval (seconds)",
        }
        fields = (
            "name", "kind", "address", "interval_s", "timeout_s", "retry_interval_s",
            "failure_threshold", "success_threshold", "degraded_after_ms", "paused", "severity",
            "group", "owner", "notes", "service", "slo_percent", "slo_days", "public", "badge",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The options in plain, for a trial; empty while something is wrong.
        self.plain: dict[str, Any] = {}
        choices = [(name, kind.label) for name, kind in kind_names()]
        if self.kind_name not in dict(choices):
            choices.append((self.kind_name, f"{self.kind_name} (not available)"))
        self.fields["kind"].choices = choices  # type: ignore[attr-defined]
        self.fields["kind"].widget.attrs |= {
            "hx-post": "../fields/", "hx-target": "#kind-fields", "hx-trigger": "change",
        }  # fmt: skip
        self.initial["kind"] = self.initial["kind_shown"] = self.kind_name
        self._tell_of_address()
        for name in _IN_FLOATS:  # 30, not 30.0
            given = self.fields[name].initial if name in self.fields else None
            value = self.initial.get(name, given)
            if isinstance(value, float) and value.is_integer():
                self.initial[name] = int(value)
        if self.is_passive:
            for name in OF_PROBES:
                self.fields.pop(name, None)
            self.fields["interval_s"].help_text = "Seconds from one ping to the next."
        if self.instance.pk:
            self.initial["tag_names"] = list(self.instance.tags.values_list("name", flat=True))
            self.initial["parent_names"] = list(
                self.instance.parents.values_list("name", flat=True)
            )

    @property
    def is_passive(self) -> bool:
        return self.probe_kind is not None and self.probe_kind.probe is None

    def stored_options(self) -> dict[str, Any]:
        return plain_options(self.instance)

    def clean_parent_names(self) -> list[Target]:
        names: list[str] = list(dict.fromkeys(self.cleaned_data["parent_names"]))
        if len(names) > MAX_PARENTS:
            raise ValidationError(f"At most {MAX_PARENTS} parents.")
        found = {target.name: target for target in Target.objects.filter(name__in=names)}
        missing = [name for name in names if name not in found]
        if missing:
            raise ValidationError(f"There is no target named {', '.join(missing[:5])}.")
        if self.instance.pk and _leads_to(self.instance.pk, [one.pk for one in found.values()]):
            raise ValidationError("A target cannot be its own parent, nor that of its parents.")
        return list(found.values())

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        chosen = cleaned.get("kind")
        if chosen and chosen != cleaned.get("kind_shown"):
            self.add_error(
                "kind", "These are the options of this kind now: look at them, and save."
            )
            sent: Any = self.data
            self.data = sent.copy()
            self.data["kind_shown"] = chosen  # type: ignore[index]
            return cleaned
        if any(name == "kind" or name.startswith(OPTION) for name in self.errors):
            return cleaned
        self.plain = self.clean_options(cleaned)
        if not any(name in self.errors for name in ("__all__", *self._option_names())):
            self._clean_together(cleaned)
        return cleaned

    def save(self, commit: bool = True) -> Any:
        if self.probe_kind is not None:
            set_options(self.instance, self.option_values, keep=self.kept_secrets)
        return super().save(commit)

    def _save_m2m(self) -> None:
        super()._save_m2m()  # type: ignore[misc]
        self.instance.tags.set(tags_named(self.cleaned_data["tag_names"]))
        self.instance.parents.set(self.cleaned_data["parent_names"])

    # --- parts -----------------------------------------------------------------------------

    def _option_names(self) -> list[str]:
        return [OPTION + option.name for option in self.option_fields]

    def _tell_of_address(self) -> None:
        kind = self.probe_kind
        if kind is None:
            return
        field = self.fields["address"]
        field.label = kind.address_label or "Address"
        field.help_text = f"For example {kind.address_example}" if kind.address_example else ""
        field.widget = forms.TextInput(
            attrs={"class": "vLargeTextField", "autocomplete": "off", "spellcheck": "false"}
        )
        field.required = bool(kind.address_problem(""))

    def _clean_together(self, cleaned: dict[str, Any]) -> None:
        """What the target as a whole would be refused for."""
        names = ["interval_s", "address", *(() if self.is_passive else ("timeout_s",))]
        if any(cleaned.get(name) is None for name in names):
            return
        whole = Target(
            name=cleaned.get("name") or "",
            kind=self.kind_name,
            secrets=dict(self.instance.secrets),
            **{name: cleaned[name] for name in names},
        )
        try:
            set_options(whole, self.option_values, keep=self.kept_secrets)
        except KindError as error:
            self.add_error("kind", str(error))
            return
        for field, text in problems(whole).items():
            if field == "options":
                self.blame(OPTION, self.option_fields, text)
            elif field not in self.errors:
                self.add_error(field if field in self.fields else None, text)


def _leads_to(target_id: int, parents: list[int]) -> bool:
    """Whether the target is among these or their ancestors."""
    seen: set[int] = set()
    level = set(parents)
    for _ in range(MAX_DEPTH):
        if target_id in level:
            return True
        seen |= level
        rows = Target.parents.through.objects.filter(from_target_id__in=level)
        level = set(rows.values_list("to_target_id", flat=True)) - seen
        if not level:
            return False
    return False


def form_for(name: str) -> type[TargetForm]:
    """The form class of a kind; of one that cannot be loaded, only what all targets share."""
    kind: ProbeKind | None
    options: list[OptionField]
    try:
        kind = kind_of(name)
        options = describe_options(kind.Options)
    except KindError:
        kind, options = None, []
    made: type[TargetForm] = type(
        "TargetForm",
        (TargetForm,),
        {
            **form_fields(options, label=label),
            "probe_kind": kind,
            "kind_name": name,
            "option_struct": kind.Options if kind is not None else None,
            "option_fields": options,
        },
    )
    return made


KIND_SET = "of-the-kind"
SCHEDULE = ("interval_s", "timeout_s", "degraded_after_ms", "failure_threshold",
            "success_threshold", "retry_interval_s", "paused")  # fmt: skip


def kind_fieldsets(made: type[TargetForm]) -> list[Any]:
    """The fieldsets that change with the kind."""
    kind = made.probe_kind
    if kind is None:
        alone: Any = (None, {"fields": ["kind_shown", "address"], "classes": [KIND_SET]})
        return [alone, _schedule(passive=False)]
    names = [option.name for option in made.option_fields]
    if len(names) > OPTIONS_SHOWN:  # else there is nothing to choose from
        names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    options = [OPTION + name for name in names]
    shown, folded = options[:OPTIONS_SHOWN], options[OPTIONS_SHOWN:]
    first = {
        "fields": ["kind_shown", "address", *shown],
        "classes": [KIND_SET],
        "description": kind.description,
    }
    sets: list[Any] = [(kind.label, first)]
    if folded:
        more = {"fields": folded, "classes": [KIND_SET, "collapse"]}
        sets.append((f"More options of {kind.label}", more))
    return [*sets, _schedule(passive=kind.probe is None)]


def _schedule(*, passive: bool) -> Any:
    """What is probed at once with the options stands above the trial, its timeout too."""
    names = [name for name in SCHEDULE if not (passive and name in OF_PROBES)]
    title = "Schedule" if passive else "Schedule and thresholds"
    return (title, {"fields": names, "classes": [KIND_SET]})


def fieldsets(made: type[TargetForm]) -> list[Any]:
    belongs = ["group", "tag_names", "severity", "owner", "notes", "parent_names"]
    rest = ["slo_percent", "slo_days", "service", "public", "badge"]
    return [
        (None, {"fields": ["name", "kind"]}),
        *kind_fieldsets(made),
        ("Who and what for", {"fields": belongs}),
        ("Objective, logs and public pages", {"fields": rest, "classes": ["collapse"]}),
    ]
