"""Finding a sink by its dotted path: only what the allow-list names is ever imported.

Pure look-ups; any thread may call them.  Importing is what Python caches, nothing is kept here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from django.conf import settings

from sinks.base import BaseSink
from sinks.options import OptionsError, decode_options

BUILT_IN = (
    "sinks.backends.database.DatabaseSink",
    "sinks.backends.postgres.PostgresSink",
    "sinks.backends.file.FileSink",
    "sinks.backends.console.ConsoleSink",
    "sinks.backends.null.NullSink",
    "sinks.backends.memory.MemorySink",
)


class BackendError(Exception):
    """The backend of a sink cannot be used; the text names the sink and what to do."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A sink class that an operator may choose."""

    path: str
    cls: type[BaseSink[Any]]

    @property
    def label(self) -> str:
        return self.cls.label or self.cls.__name__

    @property
    def description(self) -> str:
        return self.cls.description


def allowed_paths() -> tuple[str, ...]:
    """The dotted-path globs of the setting."""
    return tuple(settings.COLLECTOR.sinks.allowed_paths)


def load_backend(path: str, *, row: str = "", allowed: Iterable[str] | None = None) -> Backend:
    """The class behind `path`; `row` is the name of the sink that asks for it, for the error."""
    where = f'sink "{row}": ' if row else ""
    patterns = allowed_paths() if allowed is None else tuple(allowed)
    if not any(fnmatchcase(path, pattern) for pattern in patterns):
        raise BackendError(
            f"{where}backend {path!r} is not allowed; COLLECTOR_SINK_ALLOWED_PATHS"
            f" names {', '.join(patterns) or 'nothing'}"
        )
    module_name, _, class_name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a third party's module may fail in any way while it is imported
        raise BackendError(
            f"{where}backend {path!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    cls = getattr(module, class_name, None)
    if cls is None:
        raise BackendError(f"{where}backend {path!r}: {module_name} has no {class_name}")
    if not (isinstance(cls, type) and issubclass(cls, BaseSink)):
        raise BackendError(f"{where}backend {path!r} is not a subclass of sinks.base.BaseSink")
    return Backend(path, cls)


def make_sink(path: str, options: dict[str, object], *, name: str) -> BaseSink[Any]:
    """The sink object that a row describes; nothing is opened.  Raises BackendError."""
    backend = load_backend(path, row=name)
    try:
        return backend.cls(decode_options(backend.cls.Options, options), name=name)
    except OptionsError as error:
        raise BackendError(f'sink "{name}": {error}') from None


def available_backends() -> list[Backend]:
    """What an operator may choose: the built-in sinks, and allow-list entries without a wildcard.

    One that cannot be imported is left out here; the system checks report it.
    """
    found = []
    for path in candidate_paths():
        try:
            found.append(load_backend(path))
        except BackendError:
            continue
    return found


def candidate_paths() -> list[str]:
    """Every dotted path that the settings allow and that names one class."""
    patterns = allowed_paths()
    built_in = [p for p in BUILT_IN if any(fnmatchcase(p, pattern) for pattern in patterns)]
    named = [p for p in patterns if not any(c in p for c in "*?[")]
    return list(dict.fromkeys([*built_in, *named]))
