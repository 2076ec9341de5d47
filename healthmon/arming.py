"""What `AppConfig.ready()` registers, room by room.  Each room's `arm()` is harmless twice."""

from __future__ import annotations

import importlib

# In this order; each has a module `arming` with a function `arm()`.
ROOMS = (
    "healthmon.history",
    "healthmon.truth",
    "healthmon.leases",
    "healthmon.heartbeats",
    "healthmon.notify",
    "healthmon.targets",
    "healthmon.pages",
    "healthmon.admin",
    "healthmon.checker",
)


def arm() -> None:
    for room in ROOMS:
        importlib.import_module(f"{room}.arming").arm()
