"""The form of a sink, made from its backend's typed options: fields with limits, help and secrets.

A class is made per backend and request; nothing is kept.  A secret's field is always empty: left
empty it keeps what is stored.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from control.ports.merging import merges
from control.ports.tables import tables
from sinks.configuration import pipeline_settings, plain_options, set_options
from sinks.internal import internal_types
from sinks.models import SinkConfig
from sinks.optionform import OPTION, LinesField, OptionsForm, form_fields
from sinks.options import OptionField, OptionsError, decode_options, describe_options
from sinks.registry import Backend, BackendError, available_backends
from sinks.tuning import PipelineOverrides

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

    def clean_route_tenants(self) -> list[str]:
        tenants: list[str] = self.cleaned_data["route_tenants"]
        if len(tenants) > MAX_TENANTS:
            raise ValidationError(f"At most {MAX_TENANTS} tenants.")
        return list(dict.fromkeys(tenants))

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.option_fields and not self.errors:
            self.clean_options(cleaned)
        if self.tuning_fields and not self.errors:
            self._clean_tuning(cleaned)
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

    def _clean_tuning(self, cleaned: dict[str, Any]) -> None:
        values = {option.name: cleaned.get(TUNING + option.name) for option in self.tuning_fields}
        defaults = {option.name: option.default for option in self.tuning_fields}
        self._tuning = {
            name: value
            for name, value in values.items()
            if value not in (None, "") and value != defaults[name]
        }
        trial = SinkConfig(
            name=self.instance.name, backend=self.instance.backend, pipeline=self._tuning
        )
        try:
            decode_options(PipelineOverrides, self._tuning)
            pipeline_settings(trial)
        except (OptionsError, BackendError) as error:
            self.blame(TUNING, self.tuning_fields, str(error).removeprefix('sink "": '))


def form_for(backend: Backend | None) -> type[SinkForm]:
    """The form class of a backend; without one (it cannot be loaded) only what all sinks share."""
    if backend is None:
        return SinkForm
    options = describe_options(backend.cls.Options)
    tuning = describe_options(PipelineOverrides)
    fields: dict[str, Any] = {**form_fields(options), **form_fields(tuning, prefix=TUNING)}
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
