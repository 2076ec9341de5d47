"""What a template's text is made of: plain text and references to what a job knows.

    {payload.user.name}  {payload.items[0]}  {payload["odd name"]}  {steps.face.result.score}
    {job.id}  {job.correlation_id}  {{ and }} for braces

Pure functions; parsed texts are kept, as each attempt of each job of a type needs the same ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

PAYLOAD, STEPS, JOB = "payload", "steps", "job"
JOB_FIELDS = ("id", "correlation_id", "tenant", "service", "attempt")
MAX_TEXT_CHARS = 16_000
MAX_REFERENCES = 100
MAX_PATH = 20

_PIECE = re.compile(r'\{\{|\}\}|\{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\}|[{}]')
_ROOT = re.compile(r"payload|steps|job")
_STEP = re.compile(r'\.([\w-]+)|\[([0-9]{1,6})\]|\[("(?:[^"\\]|\\.)*")\]')


class TemplateError(ValueError):
    """The template cannot be used; the text says where and why."""


class MissingError(LookupError):
    """What a template refers to is not there; the text says what."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`text` is as the operator wrote it, without the braces."""

    root: str
    path: tuple[str | int, ...]
    text: str

    @property
    def step(self) -> str | None:
        """The step whose result is referred to."""
        return str(self.path[0]) if self.root == STEPS else None


Template: TypeAlias = tuple[str | Reference, ...]


@lru_cache(maxsize=1024)
def parsed(text: str) -> Template:
    """The parts of a text.  Raises TemplateError."""
    if len(text) > MAX_TEXT_CHARS:
        raise TemplateError(f"is longer than {MAX_TEXT_CHARS} characters")
    parts: list[str | Reference] = []
    plain: list[str] = []
    end = 0
    for match in _PIECE.finditer(text):
        plain.append(text[end : match.start()])
        end = match.end()
        whole = match[0]
        if whole in ("{{", "}}"):
            plain.append(whole[0])
        elif match[1] is None:
            raise TemplateError(
                f"has a lone {whole} at character {match.start() + 1}; "
                f"write {whole * 2} for a brace"
            )
        else:
            if before := "".join(plain):
                parts.append(before)
            plain = []
            parts.append(reference(match[1]))
    if after := "".join([*plain, text[end:]]):
        parts.append(after)
    if sum(isinstance(part, Reference) for part in parts) > MAX_REFERENCES:
        raise TemplateError(f"has more than {MAX_REFERENCES} references")
    return tuple(parts)


def reference(text: str) -> Reference:
    """Parse what stands between the braces.  Raises TemplateError."""
    root = _ROOT.match(text)
    path: list[str | int] = []
    end = root.end() if root else 0
    while root and end < len(text):
        step = _STEP.match(text, end)
        if step is None:
            break
        path.append(_member(step, text))
        end = step.end()
    if root is None or end < len(text):
        raise TemplateError(
            f"has {{{text[:80]}}}, which is no reference; write {{payload.field}}, "
            '{payload.list[0]}, {payload["odd name"]}, {steps.name.result.field} or {job.id}'
        )
    if len(path) > MAX_PATH:
        raise TemplateError(f"has {{{text[:80]}}}, which goes deeper than {MAX_PATH}")
    _check_root(root[0], path, text)
    return Reference(root[0], tuple(path), text)


def _member(step: re.Match[str], text: str) -> str | int:
    if step[1] is not None:
        return step[1]
    if step[2] is not None:
        return int(step[2])
    try:
        return str(json.loads(step[3]))
    except ValueError:
        raise TemplateError(f"has {{{text[:80]}}}, whose quoted name is no JSON text") from None


def _check_root(root: str, path: list[str | int], text: str) -> None:
    if root == JOB and (len(path) != 1 or path[0] not in JOB_FIELDS):
        raise TemplateError(f"has {{{text[:80]}}}; of a job there are {', '.join(JOB_FIELDS)}")
    if root == STEPS and (len(path) < 2 or isinstance(path[0], int) or path[1] != "result"):
        raise TemplateError(f"has {{{text[:80]}}}; of a step there is {{steps.name.result}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What references are looked up in.  `results` are those of the steps that succeeded."""

    payload: Any
    results: Mapping[str, Any]
    job: Mapping[str, Any]

    def value(self, wanted: Reference) -> Any:
        """Raises MissingError."""
        if wanted.root == JOB:
            return self.job[str(wanted.path[0])]
        if wanted.root == STEPS:
            name = str(wanted.path[0])
            if name not in self.results:
                raise MissingError(f"step {name} has no result")
            return _inside(self.results[name], wanted.path[2:], f"the result of step {name}")
        return _inside(self.payload, wanted.path, "the payload")


def _inside(value: Any, path: tuple[str | int, ...], where: str) -> Any:
    for member in path:
        if isinstance(member, int):
            if not isinstance(value, list):
                raise MissingError(f"{where} is not a list")
            if member >= len(value):
                raise MissingError(f"{where} has no element {member}")
        elif not isinstance(value, dict):
            raise MissingError(f"{where} is not an object")
        elif member not in value:
            raise MissingError(f"{where} has no {member}")
        value = value[member]
        where = f"{where}[{member}]" if isinstance(member, int) else f"{where}.{member}"
    return value
