"""What is wrong with a whole request, or with one record of it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

# Where a decoder of msgspec says that it stopped.
FAULT = re.compile(r"\(byte ([0-9]+)\)\Z")


class RequestError(Exception):
    """The request as a whole cannot be taken; `status` is the HTTP answer.

    `extra` members go into the problem document as they are.
    """

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra


class RecordError(Exception):
    """One record cannot be taken; its neighbours can."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def malformed(error: Exception, length: int) -> str:
    """What is wrong with `length` bytes that a decoder refused, in words for a sender."""
    said = str(error)
    if said.startswith("JSON is malformed"):
        return said
    if said == "Input data was truncated":
        return f"JSON is malformed: the input ends too early (byte {length})"
    return f"JSON is malformed: {said[:1].lower()}{said[1:]}"


class Rejection(msgspec.Struct, gc=False):
    """One entry of an answer's `errors`: `index` counts lines or array items from 0."""

    index: int
    code: str
    detail: str
