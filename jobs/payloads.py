"""Whether a payload is what its type's schema (JSON Schema, draft 2020-12) asks for.

A schema is an operator's, a payload anybody's: checking takes a bounded number of steps, patterns
are RE2's (time linear in the text), and nothing is ever fetched.  A schema is compiled once and
kept until it changes; `_compiled` is only ever added to or replaced whole, so that any thread may
ask without a lock, and two that compile the same at once do no harm.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema import exceptions as problems
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_ERRORS = 20
MAX_WORDS = 200
# Keywords looked at for one payload; some microseconds each.
MAX_STEPS = 200_000
MAX_COMPILED = 1_000
MAX_REGEX_BYTES = 8 * 1024 * 1024
# Values that look like schemas, and are none.
_VALUES = frozenset({"const", "enum", "default", "examples"})


class SchemaError(ValueError):
    """The schema cannot be used; the words say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadError:
    """One thing that is wrong; `pointer` is a JSON pointer (RFC 6901) within the payload."""

    pointer: str
    code: str
    detail: str


class _TooMuch(Exception):
    """More steps than a payload may take."""


_budget = threading.local()


def _counted(check: Callable[..., Any]) -> Callable[..., Any]:
    def counting(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _budget.left -= 1
        if _budget.left < 0:
            raise _TooMuch
        return check(validator, value, instance, schema)

    return counting


_regexes: dict[str, Any] = {}


def _regex(pattern: str) -> Any:
    found = _regexes.get(pattern)
    if found is None:
        options = re2.Options()
        options.max_mem = MAX_REGEX_BYTES
        options.log_errors = False
        try:
            found = re2.compile(pattern, options)
        except re2.error as error:
            words = error.args[0] if error.args else error
            said = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
            raise SchemaError(f"{pattern!r} is no expression of RE2: {said}"[:300]) from None
        if len(_regexes) >= MAX_COMPILED:
            _regexes.clear()
        _regexes[pattern] = found
    return found


# --- keywords that are not taken as they come: theirs may take for ever -------------------------


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and _regex(pattern).search(instance) is None:
        yield problems.ValidationError(f"does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        search = _regex(pattern).search
        for name, value in instance.items():
            if search(name) is not None:
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    known = schema.get("properties", {})
    searches = [_regex(pattern).search for pattern in schema.get("patternProperties", {})]
    for name, value in instance.items():
        if name in known or any(search(name) is not None for search in searches):
            continue
        if allowed is False:
            error = problems.ValidationError("there is no such property")
            error.path.append(name)
            yield error
        else:
            yield from validator.descend(value, allowed, path=name)


def _required(validator: Any, required: list[str], instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for name in required:
            if name not in instance:
                error = problems.ValidationError("is missing")
                error.path.append(name)
                yield error


def _unique_items(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[Any]:
    if not unique or not isinstance(instance, list):
        return
    seen = set()
    for item in instance:
        text = json.dumps(_canonical(item), sort_keys=True)
        if text in seen:
            yield problems.ValidationError("has the same item twice")
            return
        seen.add(text)


def _canonical(value: Any) -> Any:
    """1 and 1.0 are one number in JSON Schema, 1 and true are not the same."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    if isinstance(value, dict):
        return {name: _canonical(one) for name, one in value.items()}
    return value


_OURS = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "required": _required,
    "uniqueItems": _unique_items,
}
_Validator: Any = extend(
    Draft202012Validator,
    {
        name: _counted(_OURS.get(name, check))
        for name, check in Draft202012Validator.VALIDATORS.items()
    },
)


# --- schemas ------------------------------------------------------------------------------------


def schema_problem(schema: Any) -> str:
    """Why it cannot be a type's payload schema; "" when it can."""
    try:
        _compile(schema)
    except SchemaError as error:
        return str(error)
    return ""


def _compile(schema: Any) -> Any:
    if not isinstance(schema, dict):
        raise SchemaError("a schema is a JSON object")
    if str(schema.get("$schema", DRAFT)).rstrip("#") != DRAFT:
        raise SchemaError(f"$schema must be {DRAFT}, or be left out")
    try:
        Draft202012Validator.check_schema(schema)
    except problems.SchemaError as error:
        place = _pointer(error.absolute_path)
        raise SchemaError(f"{place or 'the schema'}: {_words(error.message)}") from None
    except RecursionError:
        raise SchemaError("the schema is nested too deep") from None
    plain = _plain(schema, "")
    validator = _Validator(plain, registry=Registry())
    for place, reference in _references(plain, ""):
        try:
            validator._resolver.lookup(reference)
        except (Unresolvable, ValueError):
            raise SchemaError(
                f"{place}: {reference!r} is not within this schema, and nothing is fetched"
            ) from None
    _budget.left = MAX_STEPS
    try:
        validator.is_valid({})
    except (RecursionError, _TooMuch):
        raise SchemaError("the schema refers to itself without end") from None
    return validator


def _plain(schema: Any, place: str) -> Any:
    """Without `$schema`, which would choose another validator; its patterns can be used."""
    if isinstance(schema, list):
        return [_plain(one, f"{place}/{n}") for n, one in enumerate(schema)]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("pattern"), str):
        _regex(schema["pattern"])
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict):
        for pattern in patterns:
            _regex(pattern)
        if "unevaluatedProperties" in schema:
            raise SchemaError(
                f"{place or 'the schema'}: unevaluatedProperties cannot stand beside "
                "patternProperties here; use additionalProperties"
            )
    return {
        name: value if name in _VALUES else _plain(value, f"{place}/{name}")
        for name, value in schema.items()
        if not (name == "$schema" and isinstance(value, str))
    }


def _references(schema: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(schema, list):
        for n, one in enumerate(schema):
            yield from _references(one, f"{place}/{n}")
    elif isinstance(schema, dict):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield f"{place}/{name}", value
            elif name not in _VALUES:
                yield from _references(value, f"{place}/{name}")


# --- payloads -----------------------------------------------------------------------------------

_compiled: dict[int, tuple[Any, Any]] = {}


def payload_errors(key: int, schema: Mapping[str, Any], payload: Any) -> list[PayloadError]:
    """What is wrong with it, at most `MAX_ERRORS`; `key` tells whose schema this is.

    Raises SchemaError where the schema cannot be used.
    """
    if not schema:
        return []
    known = _compiled.get(key)
    if known is None or (known[0] is not schema and known[0] != schema):
        if len(_compiled) >= MAX_COMPILED:
            _compiled.clear()
        known = _compiled[key] = (schema, _compile(schema))
    _budget.left = MAX_STEPS
    try:
        return [_told(e) for e in itertools.islice(known[1].iter_errors(payload), MAX_ERRORS)]
    except _TooMuch:
        return [PayloadError(pointer="", code="too_complex", detail="takes too long to check")]
    except (OverflowError, ValueError, RecursionError):
        return [PayloadError(pointer="", code="unchecked", detail="cannot be checked: too large")]


def _told(error: problems.ValidationError) -> PayloadError:
    return PayloadError(
        pointer=_pointer(error.absolute_path),
        code=str(error.validator or "false"),
        detail=_words(error.message),
    )


def _pointer(path: Any) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{part}" for part in parts)[:MAX_WORDS]


def _words(text: str) -> str:
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"
