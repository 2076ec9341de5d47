"""The form of a sink, made from its backend's typed options: fields with limits, help and secrets.

A class is made per backend and request; nothing is kept.  A secret's field is always empty: left
empty it keeps what is stored.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import escape

from control.ports.tables import tables
from sinks.configuration import pipeline_settings, plain_options, set_options
from sinks.models import SinkConfig
from sinks.options import OptionField, OptionsError, decode_options, describe_options
from sinks.registry import Backend, BackendError, available_backends, load_backend
from sinks.secrets import SecretError, is_reference, resolve
from sinks.tuning import PipelineOverrides

OPTION, TUNING = "option_", "pipeline_"
MAX_TENANTS = 1_000


class BackendForm(forms.Form):
    """The first step of adding: which kind of sink."""

    backend = forms.ChoiceField(widget=forms.RadioSelect)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backends = available_backends()
        choices = [(backend.path, backend.label) for backend in self.backends]
        self.fields["backend"].choices = choices  # type: ignore[attr-defined]


class LinesField(forms.CharField):
    """A list of texts, one a line."""

    widget = forms.Textarea(attrs={"rows": 3})

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        return [line.strip() for line in text.splitlines() if line.strip()]

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else value


class MappingField(forms.CharField):
    """Names and values, `name = value` a line."""

    widget = forms.Textarea(attrs={"rows": 6, "class": "vLargeTextField", "spellcheck": "false"})

    def to_python(self, value: Any) -> Any:
        found: dict[str, str] = {}
        for line in (super().to_python(value) or "").splitlines():
            if not line.strip():
                continue
            name, separator, text = line.partition("=")
            name, text = name.strip(), text.strip()
            if not separator or not name or not text:
                raise ValidationError(f"Expected name = value, not {line.strip()!r}.")
            if name in found:
                raise ValidationError(f"{name!r} is given twice.")
            found[name] = text
        return found

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return "\n".join(f"{name} = {text}" for name, text in value.items())
        return value


class SinkForm(forms.ModelForm[SinkConfig]):
    """What every sink has; the fields of the backend's options are added by `form_for`."""

    route_types = forms.MultipleChoiceField(
        label="Record types",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None chosen: all.",
    )
    route_tenants = LinesField(
        label="Tenants", required=False, help_text="One a line. Empty: all tenants."
    )

    backend_path: ClassVar[str] = ""
    option_fields: ClassVar[list[OptionField]] = []
    tuning_fields: ClassVar[list[OptionField]] = []

    class Meta:
        model = SinkConfig
        fields = ("name", "required", "enabled", "min_level", "route_types", "route_tenants")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        if self.backend_path and row._state.adding:
            row.backend = self.backend_path
        known = sorted({spec.record_type for spec in tables()} | set(row.route_types))
        types = self.fields.get("route_types")
        if types is not None:
            types.choices = [(name, name) for name in known]  # type: ignore[attr-defined]
        for option in self.option_fields:
            if option.kind == "secret":
                self._tell_of_secret(option.name)
            elif option.name in row.options:
                self.initial[OPTION + option.name] = row.options[option.name]
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
            self._clean_options(cleaned)
        if self.tuning_fields and not self.errors:
            self._clean_tuning(cleaned)
        return cleaned

    def save(self, commit: bool = True) -> Any:
        if self.backend_path:
            set_options(self.instance, self._values, keep=self._kept)
            self.instance.pipeline = self._tuning
        return super().save(commit)

    # --- parts -----------------------------------------------------------------------------

    _values: dict[str, Any] = {}
    _kept: frozenset[str] = frozenset()
    _tuning: dict[str, Any] = {}

    def _tell_of_secret(self, name: str) -> None:
        field = self.fields[OPTION + name]
        reference = self.instance.options.get(name)
        if name in self.instance.secrets:
            state = "A value is stored, encrypted. Leave empty to keep it."
        elif isinstance(reference, str) and is_reference(reference):
            state = f"Now {escape(reference)}. Leave empty to keep it."
        else:
            return
        field.required = False
        field.help_text = f"{field.help_text} {state}".strip()
        field.widget.attrs["placeholder"] = "kept as it is"

    def _clean_options(self, cleaned: dict[str, Any]) -> None:
        values: dict[str, Any] = {}
        kept: set[str] = set()
        for option in self.option_fields:
            value = cleaned.get(OPTION + option.name)
            if option.kind == "secret" and not value:
                if option.name in self.instance.secrets:
                    kept.add(option.name)
                elif option.name in self.instance.options:
                    values[option.name] = self.instance.options[option.name]
                continue
            if value in (None, "", {}, []) and not option.required:
                continue  # the backend's own default
            if not option.required and value == option.default:
                continue
            values[option.name] = value
        try:
            decode_options(self._backend().cls.Options, self._resolved(values, kept))
        except (OptionsError, BackendError, SecretError) as error:
            self._blame(OPTION, self.option_fields, str(error))
            return
        self._values, self._kept = values, frozenset(kept)

    def _resolved(self, values: dict[str, Any], kept: set[str]) -> dict[str, Any]:
        stored = plain_options(self.instance) if kept else {}
        resolved = values | {name: stored[name] for name in kept}
        for option in self.option_fields:
            text = resolved.get(option.name)
            if option.kind == "secret" and isinstance(text, str):
                resolved[option.name] = resolve(text, option=option.name)
        return resolved

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
            self._blame(TUNING, self.tuning_fields, str(error).removeprefix('sink "": '))

    def _blame(self, prefix: str, fields: list[OptionField], message: str) -> None:
        """Put the error at the field that it names."""
        name, _, text = message.partition(": ")
        if name in {field.name for field in fields}:
            self.add_error(prefix + name, text[:1].upper() + text[1:])
        else:
            self.add_error(None, message)

    def _backend(self) -> Backend:
        return load_backend(self.backend_path, row=self.instance.name)


def form_for(backend: Backend | None) -> type[SinkForm]:
    """The form class of a backend; without one (it cannot be loaded) only what all sinks share."""
    if backend is None:
        return SinkForm
    options = describe_options(backend.cls.Options)
    tuning = describe_options(PipelineOverrides)
    fields: dict[str, Any] = {OPTION + option.name: _form_field(option) for option in options}
    fields |= {TUNING + option.name: _form_field(option) for option in tuning}
    made: type[SinkForm] = type(
        "SinkForm",
        (SinkForm,),
        {
            **fields,
            "backend_path": backend.path,
            "option_fields": options,
            "tuning_fields": tuning,
        },
    )
    return made


def _form_field(option: OptionField) -> forms.Field:
    shared: dict[str, Any] = {
        "label": option.name,
        "required": option.required,
        "help_text": escape(option.help),  # a template prints it as it is
        "initial": option.default,
    }
    limits: dict[str, Any] = {"min_value": option.minimum, "max_value": option.maximum}
    match option.kind:
        case "int":
            return forms.IntegerField(**shared, **limits)
        case "float":
            return forms.FloatField(**shared, **limits)
        case "bool":
            return forms.BooleanField(**{**shared, "required": False})
        case "choice":
            return forms.ChoiceField(**shared, choices=[(c, c) for c in option.choices])
        case "secret":
            widget = forms.PasswordInput(
                render_value=False, attrs={"autocomplete": "off", "class": "vTextField"}
            )
            return forms.CharField(**{**shared, "initial": None}, widget=widget, strip=True)
        case "mapping":
            return MappingField(**shared)
        case "list":
            return LinesField(**shared)
        case "json":
            return forms.JSONField(**shared, encoder=json.JSONEncoder)
        case _:
            return forms.CharField(**shared, widget=forms.TextInput(attrs={"class": "vTextField"}))
