"""Keeps this process's catalogue of job types fresh, by the heart, while the process runs."""

from __future__ import annotations

from control.processes import heart
from jobs.types import catalogue

TASK = "job-types"
ROLES = frozenset({"server", "jobs", "test"})


def _refresh() -> None:
    catalogue.refresh()


class CatalogueService:
    name = "job-types"
    order = 45

    def start(self, role: str) -> None:
        if role in ROLES:
            heart.heart().watch(TASK, catalogue.fingerprint, _refresh)

    def stop(self, deadline_s: float) -> None:
        heart.heart().forget(TASK)


service = CatalogueService()
