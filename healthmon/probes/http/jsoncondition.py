"""One condition on a JSON body: a path (RFC 9535), an operator, a value.

Paths are written by operators and run on the checker, so what may cost more than the body's size
is refused when the target is saved: regular expressions and all other functions, more than one
descent or filter, a filter that begins at the root again, many unions.  Plain paths such as
$.status or $.checks[0].ok are walked without the library.  Pure; any thread.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec
from jsonpath import JSONPathEnvironment
from jsonpath.exceptions import JSONPathError

from healthmon.probes.http.regexes import compile_regex

MAX_MATCHES = 1000
MAX_UNIONS = 4
SHOWN_CHARS = 60

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_PLAIN = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_]*|\[\d{1,6}\]|\['[^'\\]*'\])*", re.ASCII)
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]|\['([^'\\]*)'\]", re.ASCII)

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Environment(JSONPathEnvironment):
    def setup_function_extensions(self) -> None:
        """None: `match` and `search` would run Python's regular expressions."""


_ENVIRONMENT = _Environment(strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCondition:
    path: str
    operator: str
    shown_value: str
    find: Callable[[Any], list[Any]]
    holds: Callable[[list[Any]], bool]

    @property
    def plain(self) -> bool:
        return _PLAIN.fullmatch(self.path) is not None

    def problem(self, body: bytes) -> str:
        """What is wrong with a body that was read to its end; "" when the condition holds."""
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return "the body is not JSON"
        except RecursionError:
            return "the body is JSON that is nested too deeply"
        try:
            found = self.find(document)
        except (JSONPathError, RecursionError):
            return f"the body is JSON that {self.path} cannot be looked up in"
        if self.holds(found):
            return ""
        if self.operator == "absent":
            return f"there is something at {self.path} in the body"
        if not found:
            return f"there is nothing at {self.path} in the body"
        value = f" {self.shown_value}" if self.operator != "exists" else ""
        return f"{self.path} in the body is {_shown(found[0])}, not {self.operator}{value}"


def compile_json(path: str, wanted: str, value: str) -> JsonCondition:
    """The condition, ready to run.  Raises ValueError naming the option."""
    bare = _QUOTED.sub("''", path)
    if bare.count("..") > 1 or bare.count("?") > 1:
        raise ValueError("json_path: has no more than one descent (..) and one filter")
    if bare.count("$") > 1:
        raise ValueError("json_path: begins at the root ($) once")
    if bare.count(",") > MAX_UNIONS:
        raise ValueError(f"json_path: has no more than {MAX_UNIONS} commas")
    try:
        compiled = _ENVIRONMENT.compile(path)
    except (JSONPathError, RecursionError) as error:
        words = str(error).partition("\n")[0][:200] or "it cannot be read"
        raise ValueError(f"json_path: not a JSON path: {words}") from None

    def search(document: Any) -> list[Any]:
        return [match.obj for match in islice(compiled.finditer(document), MAX_MATCHES)]

    steps: list[str | int] = [
        int(index) if index else name or quoted for name, index, quoted in _STEP.findall(path)
    ]

    def walk(document: Any) -> list[Any]:
        for step in steps:
            if isinstance(step, int):
                if not isinstance(document, list) or step >= len(document):
                    return []
            elif not isinstance(document, dict) or step not in document:
                return []
            document = document[step]
        return [document]

    return JsonCondition(
        path=path,
        operator=wanted,
        shown_value=value[:SHOWN_CHARS],
        find=walk if _PLAIN.fullmatch(path) else search,
        holds=_holds(wanted, value),
    )


def _holds(wanted: str, value: str) -> Callable[[list[Any]], bool]:
    expected = _typed(value)
    if wanted == "exists":
        return bool
    if wanted == "absent":
        return operator.not_
    if wanted == "==":
        return lambda found: any(_same(each, expected) for each in found)
    if wanted == "!=":
        return lambda found: bool(found) and not any(_same(each, expected) for each in found)
    if wanted == "contains":
        return lambda found: any(_contains(each, value, expected) for each in found)
    if wanted == "matches":
        regex = compile_regex(value, "json_value")
        return lambda found: any(isinstance(each, str) and regex(each.encode()) for each in found)
    compare = _ORDER[wanted]
    if not _number(expected):
        raise ValueError(f"json_value: {wanted} needs a number")
    return lambda found: any(_number(each) and compare(each, expected) for each in found)


def _typed(value: str) -> Any:
    """What was typed, as JSON when it is that: 5, true, null, "text"; otherwise as a text."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    return bool(found == expected)


def _contains(found: Any, text: str, expected: Any) -> bool:
    if isinstance(found, str):
        return (expected if isinstance(expected, str) else text) in found
    if isinstance(found, list):
        return any(_same(each, expected) for each in found)
    return isinstance(found, dict) and isinstance(expected, str) and expected in found


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode() if not isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"
