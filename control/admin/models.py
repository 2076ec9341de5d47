"""Registrations of control's own models, one module a concern.

Imported by `CollectorAdminConfig.ready`, when models are loaded.
"""

from __future__ import annotations

from control.admin import apikeys, processes, tenants
from control.outbox import admin as outbox

__all__ = ["apikeys", "outbox", "processes", "tenants"]
