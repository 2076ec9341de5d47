"""Increments: `{"counter": "X", "by": 1, "labels": {}}`; `by` is a whole number, 1 if left out.

Whole numbers alone, because a sum of fractions depends on the order in which they are added, and a
counter that is exact to the last increment must not.  The bound of `by` is what every reader of
JSON keeps exactly.  Labels are part of a counter's name: text, whole numbers and true or false, few
and short, as each combination is a counter of its own.

A field that is not known is refused, unlike in a log: nothing of an increment is kept but its sum,
and a sum to which `"value": 5` or `"label": {}` added 1 without labels cannot be put right.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from ingest.wire.envelope import Envelope, Name, read_time, times_of
from ingest.wire.errors import RecordError
from ingest.wire.fields import MAX_NAME, required_text, text_of
from pipeline.record import INFO, Record

MAX_BY = 2**53 - 1
MAX_LABELS = 16
MAX_LABEL_NAME = 63

# What a page or a terminal can show: no control characters.
_SHOWABLE = r"\A[^\x00-\x1f\x7f]*\Z"
NonEmpty = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME, pattern=_SHOWABLE)]
LabelName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LABEL_NAME, pattern=_SHOWABLE)]
LabelNumber = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
LabelValue = (
    Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern=_SHOWABLE)] | LabelNumber | bool
)


class Increment(Envelope, gc=False, kw_only=True, forbid_unknown_fields=True):
    counter: NonEmpty
    by: Annotated[int, msgspec.Meta(ge=-MAX_BY, le=MAX_BY)] = 1
    labels: Annotated[dict[LabelName, LabelValue], msgspec.Meta(max_length=MAX_LABELS)] = {}
    service: Name = None
    trace_id: Name = None
    span_id: Name = None


class _Stored(msgspec.Struct, gc=False):
    """What of a payload that was taken in says what to add to what."""

    counter: str = ""
    by: int | float | None = 1
    labels: dict[str, str | int | bool] | None = None


_SHARED = Envelope.__struct_encode_fields__
# As a sender writes them, an increment's own first.
KNOWN = (*(one for one in Increment.__struct_encode_fields__ if one not in _SHARED), *_SHARED)
_SHOWN = 63  # characters of a name that is not known

decode = msgspec.json.Decoder(Increment).decode
_decode_stored = msgspec.json.Decoder(_Stored).decode
_encode = msgspec.json.Encoder(order="sorted").encode
_is_showable = re.compile(_SHOWABLE).match


def build(parsed: list[Increment], lines: list[bytes], arrival_us: int) -> list[Record]:
    return [
        Record(
            us,
            INFO,
            one.service or "",
            one.counter,
            one.trace_id or "",
            one.span_id or "",
            raw,
        )
        for us, one, raw in zip(times_of(parsed, arrival_us), parsed, lines, strict=True)
    ]


def read(fields: dict[str, Any], line: bytes, arrival_us: int) -> Record:
    _check_known(fields)
    name = required_text(fields, "counter")
    _check_showable("counter", name)
    _check_amount(fields.get("by"))
    _check_labels(fields.get("labels"))
    return Record(
        read_time(fields, arrival_us),
        INFO,
        text_of("service", fields.get("service")),
        name,
        text_of("trace_id", fields.get("trace_id")),
        text_of("span_id", fields.get("span_id")),
        line,
    )


def read_increment(payload: bytes) -> tuple[tuple[str, str], int]:
    """The counter (its name, and its labels as JSON in one order and form) and what to add."""
    one = _decode_stored(payload)
    labels = one.labels
    text = "{}" if not labels else _encode({n: _as_text(v) for n, v in labels.items()}).decode()
    return (one.counter, text), 1 if one.by is None else int(one.by)


def _as_text(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check_known(fields: dict[str, Any]) -> None:
    for name in fields:
        if name not in KNOWN:
            raise RecordError(
                "unknown_field",
                f"{name[:_SHOWN]!r} is no field of an increment; known are {', '.join(KNOWN)}",
            )


def _check_amount(by: Any) -> None:
    if by is None:
        return
    if isinstance(by, bool) or not isinstance(by, int | float):
        raise RecordError("wrong_type", "by must be a whole number")
    if not -MAX_BY <= by <= MAX_BY:
        raise RecordError("bad_value", f"by must be between -{MAX_BY} and {MAX_BY}")
    if by != int(by):
        raise RecordError(
            "bad_value", f"by must be a whole number, this is {by}: count in a smaller unit"
        )


def _check_showable(what: str, text: str) -> None:
    if not _is_showable(text):
        raise RecordError("bad_value", f"{what} holds control characters: {ascii(text)[:_SHOWN]}")


def _check_labels(labels: Any) -> None:
    if labels is None:
        return
    if not isinstance(labels, dict):
        raise RecordError("wrong_type", "labels must be an object of names and values")
    if len(labels) > MAX_LABELS:
        raise RecordError("too_long", f"{len(labels)} labels, the most is {MAX_LABELS}")
    for name, value in labels.items():
        if not 1 <= len(name) <= MAX_LABEL_NAME:
            raise RecordError(
                "too_long" if name else "missing_field",
                f"a label's name has {len(name)} characters, it may have 1 to {MAX_LABEL_NAME}",
            )
        _check_showable("a label's name", name)
        if isinstance(value, bool):
            continue
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise RecordError(
                    "bad_value", f"labels.{name} is too large a number: send it as text"
                )
        elif not isinstance(value, str):
            raise RecordError(
                "wrong_type", f"labels.{name} must be text, a whole number, true or false"
            )
        elif len(value) > MAX_NAME:
            raise RecordError(
                "too_long",
                f"labels.{name} has {len(value)} characters, the most is {MAX_NAME}",
            )
        else:
            _check_showable(f"labels.{name}", value)
