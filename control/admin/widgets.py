"""Form widgets of the admin. Stateless."""

from __future__ import annotations

from django import forms


class MomentInput(forms.DateTimeInput):
    """A moment in one field of the browser's own: labelled, reached by Tab, needing no script."""

    input_type = "datetime-local"

    def __init__(self, attrs: dict[str, object] | None = None) -> None:
        super().__init__(format="%Y-%m-%dT%H:%M:%S", attrs={"step": "1", **(attrs or {})})
