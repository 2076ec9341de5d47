"""What is wrong with a whole request, or with one record of it."""

from __future__ import annotations

from typing import Any

import msgspec


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


class Rejection(msgspec.Struct, gc=False):
    """One entry of an answer's `errors`: `index` counts lines or array items from 0."""

    index: int
    code: str
    detail: str
