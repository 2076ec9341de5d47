"""A step's call as it goes out: path, headers and body, filled in from what the job knows.

What comes from a payload or a downstream service never becomes structure: in a path it is encoded
and stays within its segment, in a header it is one line, in a body it is a JSON value.  Pure
functions; what cannot be filled in is a PermanentError that names the step, the template and the
field, and never the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import quote, unquote

from jobs.execution.references import MissingError, Reference, Scope, Template, parsed
from jobs.execution.references import TemplateError as TemplateError
from jobs.types.spec import StepSpec
from pipeline.errors import PermanentError

MAX_PATH_CHARS = 4_000
MAX_HEADER_CHARS = 4_000
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
BODILESS = ("GET", "HEAD", "DELETE")  # unless a body is configured

_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_IN_PATH = "/?&=%:@!$'()*+,;~"  # of what the operator wrote
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


class _Filling:
    """Fills the templates of one step; knows what to name where one fails."""

    __slots__ = ("_scope", "_step")

    def __init__(self, step: StepSpec, scope: Scope) -> None:
        self._step = step
        self._scope = scope

    def fail(self, where: str, why: str) -> NoReturn:
        raise PermanentError(f"step {self._step.name}: {where} {why}")

    def parsed(self, text: Any, where: str) -> Template:
        if not isinstance(text, str):
            self.fail(where, "is not a text; mend the step of the job's type")
        try:
            return parsed(text)
        except TemplateError as error:
            self.fail(where, f"{error}; mend the step of the job's type")

    def value(self, wanted: Reference, where: str) -> Any:
        try:
            return self._scope.value(wanted)
        except MissingError as error:
            self.fail(where, f"refers to {{{wanted.text}}}, and {error}")

    def line(self, wanted: Reference, where: str) -> str:
        """A value as part of a path or header."""
        value = self.value(wanted, where)
        if isinstance(value, str):
            return value
        if value is None or isinstance(value, dict | list):
            kind = "null" if value is None else "an object" if isinstance(value, dict) else "a list"
            self.fail(
                where, f"refers to {{{wanted.text}}}, which is {kind} and not a text or number"
            )
        return json.dumps(value)


def path(step: StepSpec, scope: Scope) -> str:
    """The path with its query; "" or beginning with a slash.  Raises PermanentError."""
    filling = _Filling(step, scope)
    where = f"the path {step.path!r}"
    pieces: list[str] = []
    in_query = False
    for part in filling.parsed(step.path, where):
        if isinstance(part, str):
            in_query = in_query or "?" in part
            pieces.append(quote(part, safe=_IN_PATH))
            continue
        value = filling.line(part, where)
        if not value and not in_query:
            # Without it the path would be another one: the collection's instead of a member's.
            filling.fail(where, f"refers to {{{part.text}}}, which is empty")
        try:
            pieces.append(quote(value, safe=""))
        except UnicodeEncodeError:
            filling.fail(where, f"refers to {{{part.text}}}, which holds half a character")
    made = "".join(pieces)
    if len(made) > MAX_PATH_CHARS:
        filling.fail(where, f"becomes longer than {MAX_PATH_CHARS} characters")
    if climbs(made):
        filling.fail(where, "would lead to another place, as it holds . or .. as a part")
    if made and not made.startswith("/"):
        made = f"/{made}"
    return made


def climbs(made: str) -> bool:
    """Whether a server that decodes first could read a part of the path as . or .."""
    before_query = unquote(made.partition("?")[0])
    parts = re.split(r"[/\\]", before_query)
    return any(part.partition(";")[0] in (".", "..") for part in parts)


def headers(step: StepSpec, scope: Scope) -> dict[str, str]:
    """The configured headers.  Raises PermanentError."""
    filling = _Filling(step, scope)
    made: dict[str, str] = {}
    for name, template in step.headers.items():
        where = f"the header {name}"
        value = "".join(
            part if isinstance(part, str) else filling.line(part, where)
            for part in filling.parsed(template, where)
        ).strip(" ")
        if len(value) > MAX_HEADER_CHARS:
            filling.fail(where, f"becomes longer than {MAX_HEADER_CHARS} characters")
        if not _HEADER_VALUE.fullmatch(value):
            filling.fail(
                where, "would hold line breaks or other characters that a header does not carry"
            )
        made[name] = value
    return made


def body(step: StepSpec, scope: Scope) -> bytes | None:
    """The JSON body; the payload itself where none is configured.  Raises PermanentError."""
    if step.body is None and step.method in BODILESS:
        return None
    filling = _Filling(step, scope)
    encoder = _Encoder(filling)
    if step.body is None:
        encoder.encode(scope.payload)
    else:
        encoder.walk(step.body, 0)
    try:
        return "".join(encoder.pieces).encode()
    except UnicodeEncodeError:
        filling.fail("the body", "would hold half a character (a lone surrogate)")


class _Encoder:
    """Writes JSON piece by piece, so that many references to much stay within the limit."""

    __slots__ = ("_filling", "_left", "pieces")

    def __init__(self, filling: _Filling) -> None:
        self.pieces: list[str] = []
        self._filling = filling
        self._left = MAX_BODY_BYTES

    def put(self, piece: str) -> None:
        self._left -= len(piece)
        if self._left < 0:
            self._filling.fail("the body", f"becomes longer than {MAX_BODY_BYTES} bytes")
        self.pieces.append(piece)

    def encode(self, value: Any) -> None:
        try:
            piece = _written(value)
        except (ValueError, TypeError, RecursionError) as error:
            self._filling.fail("the body", f"would hold what JSON cannot: {error}")
        self.put(piece)

    def walk(self, node: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._filling.fail("the body", f"is nested deeper than {MAX_DEPTH}")
        if isinstance(node, str):
            self._text(self._filling.parsed(node, "the body"))
        elif isinstance(node, dict):
            self._all("{}", node.items(), depth)
        elif isinstance(node, list):
            self._all("[]", ((None, one) for one in node), depth)
        else:
            self.encode(node)

    def _all(self, brackets: str, members: Any, depth: int) -> None:
        before = brackets[0]
        for name, member in members:
            self.put(before)
            before = ","
            if name is not None:
                self.encode(str(name))
                self.put(":")
            self.walk(member, depth + 1)
        self.put(brackets if before == brackets[0] else brackets[1])

    def _text(self, template: Template) -> None:
        if len(template) == 1 and isinstance(template[0], Reference):
            self.encode(self._filling.value(template[0], "the body"))
            return
        texts: list[str] = []
        chars = 0
        for part in template:
            text = part if isinstance(part, str) else self._inline(part)
            chars += len(text)
            if chars > self._left:
                self._filling.fail("the body", f"becomes longer than {MAX_BODY_BYTES} bytes")
            texts.append(text)
        self.encode("".join(texts))

    def _inline(self, wanted: Reference) -> str:
        value = self._filling.value(wanted, "the body")
        return value if isinstance(value, str) else _written(value)


def steps_referred_to(step: StepSpec) -> frozenset[str]:
    """The steps whose results a step's templates need; those of unusable templates are not told."""
    found: set[str] = set()
    for text in texts_of(step.path, step.headers, step.body):
        try:
            found |= {one.step for one in parsed(text) if isinstance(one, Reference) and one.step}
        except TemplateError:
            continue
    return frozenset(found)


def texts_of(path: str, headers: Mapping[str, Any], body: Any) -> Iterator[str]:
    """Every text of a step that is a template."""
    yield path
    nodes = [*headers.values(), body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
