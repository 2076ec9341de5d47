"""What is wrong with a step's templates, told when it is saved rather than when it is called.

Pure functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from jobs.execution.references import (
    MAX_REFERENCES,
    PAYLOAD,
    Reference,
    TemplateError,
    parsed,
)
from jobs.execution.stepcall import OURS
from jobs.execution.templates import MAX_DEPTH, climbs

MAX_BODY_CHARS = 64_000
MAX_HEADERS = 50
MAX_PROBLEMS = 20

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_HEADER_TEXT = re.compile(r"[\x20-\x7e]*")
# What makes it unsure what a schema lets through; nothing is said of fields then.
_UNSURE = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties",
           "dependentSchemas")  # fmt: skip


class Problem(NamedTuple):
    """`field` is path, headers or body; `text` says what it does wrong: "holds a #; ..."."""

    field: str
    text: str


def template_problems(
    *,
    path: str,
    headers: Any,
    body: Any,
    earlier: Collection[str],
    schema: Any = None,
    method: str = "POST",
) -> list[Problem]:
    """Why the step could not be called, or not with any payload that `schema` lets through.

    `earlier` are the names of the steps of earlier stages.
    """
    found = [
        *_path_problems(path),
        *_header_problems(headers),
        *_body_problems(body, method),
        *_reference_problems(path, headers, body, earlier, schema),
    ]
    return list(dict.fromkeys(found))[:MAX_PROBLEMS]


def _path_problems(path: Any) -> Iterator[Problem]:
    if not isinstance(path, str):
        yield Problem("path", "is not a text")
        return
    if path and not path.startswith("/"):
        yield Problem("path", "must begin with a slash; it goes below the base URL")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        yield Problem("path", "holds line breaks or other control characters")
    plain = path.partition("?")[0]
    if "#" in path:
        yield Problem("path", "holds a #; a fragment is never sent")
    if climbs(plain):
        yield Problem("path", "holds . or .. as a part; write where it leads")


def _header_problems(headers: Any) -> Iterator[Problem]:
    if not isinstance(headers, Mapping):
        yield Problem("headers", 'must be an object, such as {"X-Tenant": "{job.tenant}"}')
        return
    if len(headers) > MAX_HEADERS:
        yield Problem("headers", f"has more than {MAX_HEADERS} headers")
    seen: set[str] = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            yield Problem("headers", f"has {str(name)[:50]!r}, which is no name of a header")
            continue
        if name.lower() in seen:
            yield Problem("headers", f"has {name} twice")
        seen.add(name.lower())
        if name.lower() in OURS and name.lower() != "content-type":
            yield Problem("headers", f"has {name}, which Collector itself sets")
        if not isinstance(value, str):
            yield Problem("headers", f"has {name} with what is not a text; put it into quotes")
        elif not _HEADER_TEXT.fullmatch(value):
            yield Problem("headers", f"has {name} with characters that a header does not carry")


def _body_problems(body: Any, method: str) -> Iterator[Problem]:
    if body is None:
        return
    if method == "HEAD":
        yield Problem("body", "is never sent with HEAD; leave it empty")
    try:
        size = len(json.dumps(body, ensure_ascii=False, allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        yield Problem("body", "is not JSON, or nested too deeply")
        return
    if size > MAX_BODY_CHARS:
        yield Problem("body", f"is longer than {MAX_BODY_CHARS} characters")
    if _depth(body) > MAX_DEPTH:
        yield Problem("body", f"is nested deeper than {MAX_DEPTH}")


def _depth(value: Any) -> int:
    level, depth = [value], -1
    while level:
        depth += 1
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        level = below
    return depth


def _reference_problems(
    path: Any, headers: Any, body: Any, earlier: Collection[str], schema: Any
) -> Iterator[Problem]:
    references = 0
    for field, text in _texts(path, headers, body):
        try:
            parts = parsed(text)
        except TemplateError as error:
            yield Problem(field, str(error))
            continue
        for part in parts:
            if not isinstance(part, Reference):
                continue
            references += 1
            if part.step is not None and part.step not in earlier:
                known = f" ({', '.join(sorted(earlier))})" if earlier else ""
                yield Problem(
                    field,
                    f"refers to {{{part.text}}}, and {part.step} is no step of an earlier "
                    f"stage{known}",
                )
            elif part.root == PAYLOAD and (why := impossible(schema, part.path)):
                yield Problem(field, f"refers to {{{part.text}}}, and {why}")
    if references > MAX_REFERENCES:
        yield Problem("body", f"has, with path and headers, more than {MAX_REFERENCES} references")


def _texts(path: Any, headers: Any, body: Any) -> Iterator[tuple[str, str]]:
    if isinstance(path, str):
        yield "path", path
    if isinstance(headers, Mapping):
        yield from (("headers", one) for one in headers.values() if isinstance(one, str))
    nodes = [body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            yield "body", node
        elif isinstance(node, dict):
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)


def impossible(schema: Any, path: tuple[str | int, ...]) -> str:
    """Why no payload of that schema has such a field; "" where one may."""
    where = "the payload"
    for member in path:
        if not isinstance(schema, Mapping) or any(word in schema for word in _UNSURE):
            return ""
        kinds = schema.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        wanted = "array" if isinstance(member, int) else "object"
        if isinstance(kinds, list) and wanted not in kinds:
            return f"by the schema {where} is no {wanted}"
        if isinstance(member, int):
            if "prefixItems" in schema:
                return ""
            schema = schema.get("items")
            where = f"{where}[{member}]"
            continue
        fields = schema.get("properties")
        fields = fields if isinstance(fields, Mapping) else {}
        if member not in fields:
            others = schema.get("additionalProperties")
            if others is False:
                return f"by the schema {where} has no {member}"
            schema = others
        else:
            schema = fields[member]
        where = f"{where}.{member}"
    return ""
