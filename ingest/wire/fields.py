"""Reading one record's fields with patience: which is wrong, and how.

The way of a record that the typed decoder refused, so it may take its time; a record that is
right in a less usual way (a timestamp without an offset, an alias of another type beside the
field that counts) comes through.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ingest.wire.errors import RecordError, malformed

MAX_NAME = 255  # characters of what is filtered by: service, ids, user, action

# A number beyond a double's range is infinite here, and judged where a number is asked for.
_decode = msgspec.json.Decoder(float_hook=float).decode
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "an array",
          dict: "an object", str: "text"}  # fmt: skip


def decode_object(line: bytes) -> dict[str, Any]:
    """The line as a JSON object; raises RecordError if it is anything else."""
    try:
        value = _decode(line)
    except RecursionError:
        raise RecordError("too_deep", "the record nests too deeply to be read") from None
    except msgspec.DecodeError as error:
        raise RecordError("malformed_json", malformed(error, len(line))) from None
    except UnicodeDecodeError as error:
        raise RecordError("invalid_utf8", f"the record is not UTF-8: {error.reason}") from None
    if not isinstance(value, dict):
        raise RecordError("not_an_object", f"a record is a JSON object, this is {_kind(value)}")
    return value


def first_of(fields: dict[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of the names that has a value, and that value; (names[0], None) if none has."""
    for name in names:
        value = fields.get(name)
        if value is not None:
            return name, value
    return names[0], None


def text_of(name: str, value: Any, *, limit: int | None = MAX_NAME) -> str:
    """The value as text ("" for null); raises RecordError if it is not text or too long."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError("wrong_type", f"{name} must be text, this is {_kind(value)}")
    if limit is not None and len(value) > limit:
        raise RecordError("too_long", f"{name} has {len(value)} characters, the most is {limit}")
    return value


def required_text(fields: dict[str, Any], name: str) -> str:
    if fields.get(name) is None:
        raise RecordError("missing_field", f"{name} is missing")
    text = text_of(name, fields[name])
    if not text:
        raise RecordError("missing_field", f"{name} is empty")
    return text


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")
