"""What every number of a row must be.  Pure."""

from __future__ import annotations

import math

from django.core.exceptions import ValidationError


def finite(value: float) -> None:
    """NaN passes validators that compare.  Raises ValidationError."""
    if not math.isfinite(value):
        raise ValidationError("It must be a finite number.")
