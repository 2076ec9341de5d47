"""Writes the engine's API reference, pipeline/API.md, from its signatures and docstrings.

`python -m scripts.pipeline_api` writes it; a test fails while it is not what would be written.
Everything is asked of the imported library, so that the reference says what the code does.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

import pipeline

OUT = Path(__file__).resolve().parent.parent / "pipeline" / "API.md"

GROUPS = {
    "The engine": ("Engine", "RecordIds", "Receipt"),
    "Records and batches": ("Record", "Batch", "Part", "level_name"),
    "Severities": ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"),
    "Sinks": ("Sink", "Written", "PipelineSpec", "Route", "DeadLetterBox", "DeadLetter"),
    "What a sink raises": (
        "SinkError",
        "RetryableError",
        "PermanentError",
        "PartialFailure",
        "SinkFault",
    ),
    "Why an offer is refused": (
        "Refused",
        "Saturated",
        "TooLarge",
        "Draining",
        "NoSink",
        "LogUnavailable",
    ),
    "Settings": (
        "PipelineSettings",
        "RetryPolicy",
        "RetryDecision",
        "BreakerSettings",
        "AutoscaleSettings",
        "AdaptiveSettings",
        "LogSettings",
    ),
    "Watching": ("Observer", "WorkerRun"),
    "Time and tests": ("Clock", "SystemClock", "FakeClock", "Signals"),
}

HEAD = """\
# API reference of collector-pipeline

Everything that `from pipeline import ...` may rely on. Written by `python -m scripts.pipeline_api`
from the code; what to know first is in [README.md](README.md).

**Units** are in the names: `_s` seconds, `_us` microseconds since 1970 UTC, `_bytes` bytes,
`_records` records.
**Settings** are frozen dataclasses, safe to share between threads; they check themselves when made
and raise `ValueError` naming every field that is wrong.
**Errors** of misuse are the usual `TypeError`, `ValueError` and `KeyError`; all others are below.
"""


def reference() -> str:
    """The whole text of API.md."""
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        if title == "Severities":
            parts.append(_constants(names))
            continue
        parts += [_described(name, getattr(pipeline, name)) for name in names]
    return "\n".join(parts)


def _constants(names: tuple[str, ...]) -> str:
    values = ", ".join(f"`{name}` = {getattr(pipeline, name)}" for name in names)
    return f"OpenTelemetry's severity numbers, the first of each of its six ranges: {values}.\n"


def _described(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        return f"### `{name}{_signature(thing)}`\n\n{_doc(thing)}\n"
    lines = [f"### {_headline(name, thing)}\n", f"{_doc(thing)}\n"]
    if made := _made(thing):
        lines.append(f"{made}\n")
    if fields := _fields(thing):
        lines += ["| field | type | default |", "|---|---|---|", *fields, ""]
    lines += [_member(thing, member) for member in members(thing)]
    return "\n".join(lines)


def _headline(name: str, thing: type) -> str:
    bases = [base.__name__ for base in thing.__bases__ if base.__name__ in pipeline.__all__]
    kind = f" ({', '.join(bases)})" if bases else ""
    if getattr(thing, "_is_protocol", False):
        kind = " (protocol)"
    elif issubclass(thing, Exception) and not bases:
        kind = " (Exception)"
    return f"`{name}`{kind}"


def _made(thing: type) -> str:
    """How it is made, where that is neither by its fields nor by its users."""
    own = vars(thing).get("__init__")
    if own is None or _fields(thing) or getattr(thing, "_is_protocol", False):
        return ""
    if thing.__name__ in ("Receipt", "Batch", "Part"):
        return "The engine makes it."
    text = f"`{thing.__name__}{_signature(own, bound=True)}`"
    return f"{text}\n\n{_doc(own)}" if own.__doc__ else text


def _fields(thing: type) -> list[str]:
    """A row for each field of a dataclass or Struct."""
    if dataclasses.is_dataclass(thing):
        return [
            _row(one.name, one.type, _default(one.default, one.default_factory))
            for one in dataclasses.fields(thing)
        ]
    if issubclass(thing, msgspec.Struct):
        hints = get_type_hints(thing)
        return [
            _row(one.name, _type(hints[one.name]), _default(one.default, one.default_factory))
            for one in msgspec.structs.fields(thing)
        ]
    return []


def _row(name: str, annotation: object, default: str) -> str:
    text = str(annotation).replace("|", "\\|")
    return f"| `{name}` | `{text}` | {default} |"


def _default(value: Any, factory: Any) -> str:
    if factory not in (dataclasses.MISSING, msgspec.NODEFAULT):
        return f"`{factory.__name__}()`"
    if value in (dataclasses.MISSING, msgspec.NODEFAULT):
        return ""
    return f"`{value!r}`"


def _type(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


def members(thing: type) -> list[str]:
    """The public methods and properties that a class adds, in the order of its code."""
    others = {row.split("`")[1] for row in _fields(thing)} | HIDDEN.get(thing.__name__, set())
    others.update(*(vars(base) for base in thing.__mro__[1:]))
    return [
        name
        for name, value in vars(thing).items()
        if not name.startswith("_")
        and name not in others
        and name != "problems"  # asked by whoever makes settings from a form
        and (callable(value) or isinstance(value, property | staticmethod | classmethod))
    ]


# What is public to the engine's other files only.
HIDDEN: dict[str, set[str]] = {
    "Batch": {"halves", "parts_of"},
    "Part": {"fitting", "of_extent", "of_records", "split", "unread"},
    "Receipt": {"settled_one"},
    "Route": {"passing"},
    "Engine": {"abandon", "adoption", "journal", "key_recorded", "logs", "names"}
    | {"on_adopted", "retired", "unclaimed_sinks", "log_refusal", "forget", "pipelines"},
    # As the protocol says.
    "SystemClock": {"monotonic", "time_us", "wait"},
    "FakeClock": {"monotonic", "time_us", "wait"},
}


def _member(thing: type, name: str) -> str:
    value = inspect.getattr_static(thing, name)
    if isinstance(value, property):
        head = f"#### `{thing.__name__}.{name}`"
        doc = inspect.getdoc(value)
    else:
        head = f"#### `{thing.__name__}.{name}{_signature(value, bound=True)}`"
        doc = inspect.getdoc(value)
    return f"{head}\n\n{doc}\n" if doc else f"{head}\n"


class _Bare:
    """Stands in a signature as it is written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _signature(function: Any, *, bound: bool = False) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if bound and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    shown = []
    for one in parameters:
        one = one.replace(annotation=_Bare(one.annotation))
        if callable(one.default) and one.default is not inspect.Parameter.empty:
            one = one.replace(default=_Bare("..."))
        shown.append(one)
    answer = _Bare(signature.return_annotation)
    return str(signature.replace(parameters=shown, return_annotation=answer)).removesuffix(
        " -> None"
    )


def _doc(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


if __name__ == "__main__":
    OUT.write_text(reference())
    print(f"{OUT} written")
