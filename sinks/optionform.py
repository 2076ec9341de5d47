"""Typed options as fields of a form: for sinks, and for whatever else keeps options in a row.

The row has `options` and `secrets`, as `SinkConfig` has.  A secret's field is always empty: left
empty it keeps what is stored.  Runs in request threads; keeps nothing between them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import escape

from sinks.options import OptionField, OptionsError, SinkOptions, decode_options
from sinks.secrets import SecretError, is_reference, resolve

OPTION = "option_"


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


class OptionsForm(forms.ModelForm[Any]):
    """The part of a form that knows options; subclasses say where they are stored."""

    option_struct: ClassVar[type[SinkOptions] | None] = None
    option_fields: ClassVar[list[OptionField]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.option_values: dict[str, Any] = {}
        self.kept_secrets: frozenset[str] = frozenset()
        for option in self.option_fields:
            if OPTION + option.name not in self.fields:
                continue
            if option.kind == "secret":
                self._tell_of_secret(option.name)
            elif option.name in self.instance.options:
                self.initial[OPTION + option.name] = self.instance.options[option.name]

    def stored_options(self) -> dict[str, Any]:
        """The row's options with its secrets in plain."""
        raise NotImplementedError

    def clean_options(self, cleaned: dict[str, Any]) -> dict[str, Any]:
        """Fill `option_values` and `kept_secrets`; answers the options in plain, for a trial.

        What is wrong is put at the field that it names, and the answer is empty.
        """
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
                continue  # the struct's own default
            if not option.required and value == option.default:
                continue
            values[option.name] = value
        try:
            resolved = self._resolved(values, kept)
            if self.option_struct is not None:
                decode_options(self.option_struct, resolved)
        except (OptionsError, SecretError) as error:
            self.blame(OPTION, self.option_fields, str(error))
            return {}
        self.option_values, self.kept_secrets = values, frozenset(kept)
        return resolved

    def blame(self, prefix: str, fields: Iterable[OptionField], message: str) -> None:
        """Put the error at the field that it names."""
        name, _, text = message.partition(": ")
        if name in {field.name for field in fields}:
            self.add_error(prefix + name, text[:1].upper() + text[1:])
        else:
            self.add_error(None, message)

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

    def _resolved(self, values: dict[str, Any], kept: set[str]) -> dict[str, Any]:
        stored = self.stored_options() if kept else {}
        resolved = values | {name: stored[name] for name in kept}
        for option in self.option_fields:
            text = resolved.get(option.name)
            if option.kind == "secret" and isinstance(text, str):
                resolved[option.name] = resolve(text, option=option.name)
        return resolved


def form_fields(
    options: Iterable[OptionField],
    *,
    prefix: str = OPTION,
    label: Callable[[str], str] = str,
) -> dict[str, forms.Field]:
    """A field for each option; `label` makes an option's name what people read."""
    return {prefix + option.name: form_field(option, label(option.name)) for option in options}


def form_field(option: OptionField, label: str) -> forms.Field:
    shared: dict[str, Any] = {
        "label": label,
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
