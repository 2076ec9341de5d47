"""The form of a sink, made from its backend's typed options: fields with limits, help and secrets.

A class is made per backend and request; nothing is kept.  A secret's field is always empty: left
empty it keeps what is stored.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError

from control.ports.merging import merges
from control.ports.tables import tables
from sinks.base import BaseSink
from sinks.configuration import plain_options, set_options
from sinks.internal import internal_types
from sinks.limits import within_limits, without_effect
from sinks.models import SinkConfig
from sinks.optionform import OPTION, LinesField, OptionsForm, form_fields
from sinks.options import OptionField, OptionsError, decode_options, describe_options
from sinks.registry import Backend, available_backends, make_sink
from sinks.secrets import SecretError
from sinks.tuning import PipelineOverrides, as_overrides
from sinks.tuninggroups import LABELS

__all__ = ["OPTION", "TUNING", "BackendForm", "SinkForm", "form_for"]

TUNING = "pipeline_"
MAX_TENANTS = 1_000


class BackendForm(forms.Form):
    """The first step of adding: which kind of sink."""

    backend = forms.ChoiceField(widget=forms.RadioSelect)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backends = available_backends()
        choices = [(backend.path, backend.label) for backend in self.backends]
        self.fields["backend"].choices = choices  # type: ignore[attr-defined]


class SinkForm(OptionsForm):
    """What every sink has; the fields of the backend's options are added by `form_for`."""

    route_types = forms.MultipleChoiceField(
        label="Record types",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None chosen: all that is sent. Of what Collector finds itself (flip: a target's "
        "status changed; probe: a result; ping) a sink gets what is chosen here.",
    )
    route_tenants = LinesField(
        label="Tenants", required=False, help_text="One a line. Empty: all tenants."
    )

    backend_path: ClassVar[str] = ""
    tuning_fields: ClassVar[list[OptionField]] = []

    class Meta:
        model = SinkConfig
        fields = ("name", "required", "enabled", "min_level", "route_types", "route_tenants")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        if self.backend_path and row._state.adding:
            row.backend = self.backend_path
        known = sorted(
            {spec.record_type for spec in tables()}
            | {spec.record_type for spec in merges()}
            | set(row.route_types)
            | internal_types()
        )
        types = self.fields.get("route_types")
        if types is not None:
            types.choices = [(name, name) for name in known]  # type: ignore[attr-defined]
        for option in self.tuning_fields:
            if option.name in row.pipeline:
                self.initial[TUNING + option.name] = row.pipeline[option.name]
        if self.tuning_fields:
            self._tell_defaults()

    def clean_route_tenants(self) -> list[str]:
        tenants: list[str] = self.cleaned_data["route_tenants"]
        if len(tenants) > MAX_TENANTS:
            raise ValidationError(f"At most {MAX_TENANTS} tenants.")
        return list(dict.fromkeys(tenants))

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        resolved: dict[str, Any] = {}
        if self.option_fields and not self.errors:
            resolved = self.clean_options(cleaned)
        if self.tuning_fields and not self.errors:
            self._clean_tuning(cleaned, self._sink(resolved))
        return cleaned

    def save(self, commit: bool = True) -> Any:
        if self.backend_path:
            set_options(self.instance, self.option_values, keep=self.kept_secrets)
            self.instance.pipeline = self._tuning
        return super().save(commit)

    def stored_options(self) -> dict[str, Any]:
        return plain_options(self.instance)

    # --- parts -----------------------------------------------------------------------------

    _tuning: dict[str, Any] = {}

    def _clean_tuning(self, cleaned: dict[str, Any], sink: BaseSink[Any] | None) -> None:
        values = {option.name: cleaned.get(TUNING + option.name) for option in self.tuning_fields}
        defaults = {option.name: option.default for option in self.tuning_fields}
        self._tuning = {
            name: value
            for name, value in values.items()
            if value not in (None, "") and value != defaults[name]
        }
        try:
            overrides = decode_options(PipelineOverrides, self._tuning)
        except OptionsError as error:
            self.blame(TUNING, self.tuning_fields, str(error))
            return
        for problem in overrides.problems(settings.COLLECTOR.pipeline):
            # Beside what was set here: the rest is the installation's.
            names = [name for name in problem.names if name in self._tuning] or problem.names[:1]
            text = f"{problem.text[:1].upper()}{problem.text[1:]}."
            for name in names:
                self.add_error(TUNING + name, text)
            if not names:
                self.add_error(None, text)
        if sink is not None:
            for name, text in without_effect(sink, self._tuning).items():
                self.add_error(TUNING + name, text)

    def _sink(self, resolved: dict[str, Any]) -> BaseSink[Any] | None:
        """The sink as it would be made, not opened: it tells what it bears."""
        row = self.instance
        try:
            return make_sink(row.backend, resolved, name=row.name)
        except Exception:  # a third party's constructor may fail in any way; a trial tells of it
            return None

    def _tell_defaults(self) -> None:
        """What holds where nothing is set, in the field itself."""
        in_force = settings.COLLECTOR.pipeline
        try:
            sink = self._sink(self.stored_options())
        except SecretError:
            sink = None
        if sink is not None:
            in_force = within_limits(in_force, sink)
        values = as_overrides(in_force)
        for option in self.tuning_fields:
            field, value = self.fields.get(TUNING + option.name), values[option.name]
            if isinstance(field, forms.ChoiceField):
                field.choices = [
                    (choice, f"default ({value})" if choice == "default" else choice)
                    for choice in option.choices
                ]
            elif field is not None:
                field.widget.attrs["placeholder"] = default_text(value)


def default_text(value: Any) -> str:
    """A setting's value where nothing else is set: "10,000,000", or "no limit" for none."""
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _name_it(field: forms.Field, name: str) -> None:
    """Let the help text tell the setting's own name; it is HTML already."""
    field.help_text = f"{field.help_text} <code>{name}</code>"


def form_for(backend: Backend | None) -> type[SinkForm]:
    """The form class of a backend; without one (it cannot be loaded) only what all sinks share."""
    if backend is None:
        return SinkForm
    options = describe_options(backend.cls.Options)
    tuning = describe_options(PipelineOverrides)
    fields: dict[str, Any] = {
        **form_fields(options),
        **form_fields(tuning, prefix=TUNING, label=LABELS.__getitem__),
    }
    for option in tuning:
        _name_it(fields[TUNING + option.name], option.name)
    made: type[SinkForm] = type(
        "SinkForm",
        (SinkForm,),
        {
            **fields,
            "backend_path": backend.path,
            "option_struct": backend.cls.Options,
            "option_fields": options,
            "tuning_fields": tuning,
        },
    )
    return made
