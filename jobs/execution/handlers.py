"""Python functions that steps may run: found by dotted path, if an allowed pattern names them.

The path is judged before anything is imported, and what was found once more by where it is really
defined, so that a name that a module merely imported is not a way around.  Called from any worker's
thread; found functions are kept, and finding one twice at once is harmless.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from jobs.execution.context import StepContext

Handler: TypeAlias = Callable[[StepContext], Any]

_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)+")
SETTING = "COLLECTOR_JOBS_HANDLERS"


class HandlerError(ValueError):
    """The handler cannot be used until somebody mends its path, the setting or its code."""


class Handlers:
    """`patterns` are dotted paths; a * stands for any name, or names."""

    def __init__(self, *, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._allowed = [
            re.compile(re.escape(pattern.strip()).replace(r"\*", "[A-Za-z0-9_.]+"))
            for pattern in patterns
            if pattern.strip()
        ]
        self._found: dict[str, Handler] = {}

    def find(self, path: str) -> Handler:
        """Raises HandlerError."""
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = self._find(path)
        return found

    def problem(self, path: str) -> str:
        """Why it cannot be used; "" when it can."""
        try:
            self.find(path)
        except HandlerError as error:
            return str(error)
        return ""

    def _find(self, path: str) -> Handler:
        if len(path) > 200 or not _PATH.fullmatch(path):
            raise HandlerError(f"{path[:80]!r} is no dotted path such as jobs.examples.ekyc.face")
        self._judge(path, path)
        module_name, _, name = path.rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise HandlerError(
                f"{module_name} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        found = getattr(module, name, None)
        if found is None:
            raise HandlerError(f"{module_name} has no {name}")
        if not callable(found) or inspect.isclass(found):
            raise HandlerError(f"{path} is not a function")
        self._judge(f"{getattr(found, '__module__', '')}.{name}", path)
        if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
            raise HandlerError(f"{path} is not a plain function, but an asynchronous or generating")
        try:
            inspect.signature(found).bind(None)
        except (TypeError, ValueError):
            raise HandlerError(f"{path} cannot be called with a StepContext alone") from None
        return found  # type: ignore[no-any-return]

    def _judge(self, defined: str, path: str) -> None:
        if any(pattern.fullmatch(defined) for pattern in self._allowed):
            return
        what = path if defined == path else f"{path}, which is really {defined},"
        raise HandlerError(f"{what} is not among {SETTING} ({', '.join(self._patterns) or 'none'})")
