"""Owns: option values that several sending commands read the same way.

Runs on the command's main thread while the command line is parsed.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Callable


def whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ArgumentTypeError(f"{text} is not between {low:,} and {high:,}")
        return value

    return parse


def amount(high: float, *, low: float = 0.0) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a number") from None
        if not low <= value <= high:
            raise ArgumentTypeError(f"{text} is not between {low:,g} and {high:,g}")
        return value

    return parse


def api_key_from_environment() -> str:
    """The sender's own key. It is no setting of the server, which may be on another machine."""
    return os.environ.get("COLLECTOR_API_KEY", "")
