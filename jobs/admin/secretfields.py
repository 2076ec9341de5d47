"""Secrets in forms: typed, kept encrypted or as `env:NAME`, and never sent back.  Stateless."""

from __future__ import annotations

from collections.abc import Mapping

from django import forms
from django.core.exceptions import ValidationError

from sinks.secrets import encrypt, is_reference

MAX_LINES = 50


def stored(value: str) -> str:
    """The value as it is kept: a reference as it is, anything else encrypted."""
    return value if is_reference(value) else encrypt(value)


def shown(name: str, kept: str) -> str:
    """What may be seen of a secret: its name, and where a reference points."""
    return f"{name} ({kept})" if is_reference(kept) else f"{name} (set)"


class SecretHeadersField(forms.CharField):
    """Headers to add or replace, one a line, as `Name: value`; becomes a mapping in plain."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(
            required=False,
            label="Set secret headers",
            max_length=50_000,
            widget=forms.Textarea(
                attrs={"rows": 3, "class": "vLargeTextField", "spellcheck": "false",
                       "autocomplete": "off", "placeholder": "Authorization: env:PARTNER_TOKEN"}
            ),
            help_text="One a line, as Name: value. A value env:NAME is read from the environment "
            "of the runners; any other is kept encrypted and not shown again.",
        )  # fmt: skip

    def clean(self, value: object) -> dict[str, str]:
        text = str(super().clean(value) or "")
        found: dict[str, str] = {}
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > MAX_LINES:
            raise ValidationError(f"There are more than {MAX_LINES} lines.")
        for number, line in enumerate(lines, 1):
            name, colon, secret = line.partition(":")
            if not colon or not name.strip() or not secret.strip():
                # The line is not repeated: it may hold the secret.
                raise ValidationError(f"Line {number} is not of the form Name: value.")
            found[name.strip()] = secret.strip()
        return found

    def prepare_value(self, value: object) -> str:
        return ""


class NewSecretField(forms.CharField):
    """One secret, typed anew to be replaced."""

    def __init__(self, *, label: str, help_text: str) -> None:
        super().__init__(
            required=False,
            label=label,
            max_length=1_000,
            help_text=help_text,
            widget=forms.PasswordInput(
                render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"}
            ),
        )


def merged(
    kept: Mapping[str, str], *, removed: list[str], added: Mapping[str, str]
) -> dict[str, str]:
    """The secret headers as they are to be kept; a name replaces itself in any case."""
    replaced = {name.lower() for name in (*removed, *added)}
    left = {name: value for name, value in kept.items() if name.lower() not in replaced}
    return left | {name: stored(value) for name, value in added.items()}
