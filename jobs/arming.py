"""What `AppConfig.ready()` registers, room by room.  Each room's `arm()` is harmless twice."""

from __future__ import annotations

import importlib

# In this order; each has a module `arming` with a function `arm()`.
ROOMS = (
    "jobs.types",
    "jobs.store",
    "jobs.downstream",
    "jobs.execution",
    "jobs.running",
    "jobs.schedules",
    "jobs.upkeep",
    "jobs.webhooks",
    "jobs.bulk",
    "jobs.api",
    "jobs.admin",
)


def arm() -> None:
    for room in ROOMS:
        importlib.import_module(f"{room}.arming").arm()
