"""What apps put on the dashboard: panels in order, and the problems that stand above them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from django.http import HttpRequest

from control.ports.registry import Registry

logger = logging.getLogger(__name__)

Severity: TypeAlias = Literal["error", "warning", "info"]
_RANK: dict[str, int] = {"error": 0, "warning": 1, "info": 2}


@runtime_checkable
class DashboardPanel(Protocol):
    """One part of the admin's index. `name` is a slug, unique, used as the fragment's address."""

    name: str
    order: int
    title: str

    def render(self, request: HttpRequest) -> str:
        """The panel's body as safe HTML."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong now: what, why, and what the operator should do about it."""

    severity: Severity
    title: str
    cause: str
    remedy: str
    url: str = ""


ProblemSource: TypeAlias = Callable[[], list[Problem]]

_panels: Registry[DashboardPanel] = Registry(what="panel")
_problems: Registry[ProblemSource] = Registry(what="problem source")


def register_panel(panel: DashboardPanel) -> None:
    _panels.register(panel.name, panel)


def unregister_panel(name: str) -> None:
    _panels.unregister(name)


def panels() -> list[DashboardPanel]:
    return sorted(_panels.values(), key=lambda panel: (panel.order, panel.name))


def register_problems(source: ProblemSource, *, name: str = "") -> None:
    _problems.register(name or f"{source.__module__}.{source.__qualname__}", source)


def unregister_problems(name: str) -> None:
    _problems.unregister(name)


def problems() -> list[Problem]:
    """Every source's problems, the gravest first. A source that fails is itself a problem."""
    found: list[Problem] = []
    for name, source in _problems.items():
        try:
            found.extend(source())
        except Exception as error:
            logger.exception("problem source failed", extra={"source": name})
            found.append(
                Problem(
                    severity="warning",
                    title=f"{name} could not be examined",
                    cause=type(error).__name__,
                    remedy="See this process's log for the traceback.",
                )
            )
    return sorted(found, key=lambda problem: _RANK.get(problem.severity, len(_RANK)))
