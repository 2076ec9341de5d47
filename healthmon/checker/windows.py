"""Which targets are in maintenance: the windows that are open now, and whom they cover.

Used on the event loop alone.  Targets are gone through only when a window opens or closes, or the
windows change; a target that comes later is asked about by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from healthmon.checker.loader import WindowScope
from healthmon.targets.spec import TargetSpec
from healthmon.truth.maintenance import active


class Windows:
    """`told(target_id, title)` hears where each target stands; None is in no window."""

    def __init__(self, *, told: Callable[[int, str | None], None]) -> None:
        self._told = told
        self._scopes: list[WindowScope] = []
        self._open: list[WindowScope] = []

    def replace(
        self, scopes: list[WindowScope], specs: Iterable[TargetSpec], now: datetime
    ) -> None:
        """The windows are these from now on."""
        self._scopes = scopes
        self._open = self._open_at(now)
        self._tell(specs)

    def beat(self, specs: Iterable[TargetSpec], now: datetime) -> None:
        """Look whether a window has opened or closed."""
        if not self._scopes and not self._open:
            return
        open_now = self._open_at(now)
        if open_now != self._open:
            self._open = open_now
            self._tell(specs)

    def title_for(self, spec: TargetSpec) -> str | None:
        """The window that a target is in now."""
        for scope in self._open:
            if scope.covers(spec):
                return scope.title
        return None

    def _open_at(self, now: datetime) -> list[WindowScope]:
        return [scope for scope in self._scopes if active(scope.window, now)]

    def _tell(self, specs: Iterable[TargetSpec]) -> None:
        for spec in list(specs):
            self._told(spec.id, self.title_for(spec))
