"""A form's field for JSON: bounded in size and depth, laid out for reading.  Stateless."""

from __future__ import annotations

import json
import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from control.web.jsonbody import BadJson, decode_json

MAX_CHARS = 256 * 1024
MAX_DEPTH = 50
# A {reference} that stands where a JSON value is expected.
_BARE = re.compile(r"(?:^|[:\[,])\s*\{(?:payload|steps|job)\b")


class JsonText(str):
    """What was typed and could not be read; shown again as it is."""


class JsonField(forms.CharField):
    """`empty` is the value of a field that is left empty; `kind` the type that is asked for."""

    def __init__(
        self,
        *,
        empty: Any = None,
        kind: type | None = None,
        max_depth: int = MAX_DEPTH,
        max_bytes: int = MAX_CHARS,
        rows: int = 6,
        **kwargs: Any,
    ) -> None:
        self.empty = empty
        self.kind = kind
        self.max_depth = max_depth
        self.max_bytes = max_bytes
        kwargs.setdefault("required", False)
        # What stands in the form may be laid out more widely than what is kept.
        kwargs.setdefault("max_length", 4 * max_bytes)
        kwargs.setdefault(
            "widget",
            forms.Textarea(
                attrs={"rows": rows, "class": "vLargeTextField json-input", "spellcheck": "false"}
            ),
        )
        super().__init__(strip=True, **kwargs)

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if text in self.empty_values:
            return self.empty
        try:
            found = decode_json(
                str(text).encode("utf-8", "surrogatepass"), max_depth=self.max_depth
            )
        except BadJson as error:
            said = str(error).replace("The body", "This")
            if _BARE.search(str(text)):
                said += (
                    ' A reference stands in quotes, such as "{payload.user_id}"; where nothing '
                    "else is in them, a number stays a number."
                )
            raise ValidationError(said, code="invalid") from None
        if self.kind is not None and not isinstance(found, self.kind):
            raise ValidationError("This must be a JSON object.", code="invalid")
        compact = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
        if len(compact) > self.max_bytes:
            raise ValidationError(
                f"This is {len(compact):,} bytes; at most {self.max_bytes:,} are taken.",
                code="too_large",
            )
        return found

    def validate(self, value: Any) -> None:
        if self.required and value is None:
            raise ValidationError(self.error_messages["required"], code="required")

    def run_validators(self, value: Any) -> None:
        """The length was judged by its bytes."""

    def clean(self, value: Any) -> Any:
        if isinstance(value, str) and len(value) > (self.max_length or 0):
            raise ValidationError("This is too long.", code="too_large")
        found = self.to_python(value)
        self.validate(found)
        return found

    def prepare_value(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            # A text that was typed and not taken; a JSON text stands in its quotes.
            return value
        if value == self.empty:
            return ""
        return json.dumps(value, indent=2, ensure_ascii=False)

    def has_changed(self, initial: Any, data: Any) -> bool:
        if self.disabled:
            return False
        try:
            found = self.to_python(data)
        except ValidationError:
            return True
        return bool(found != (self.empty if initial is None else initial))
