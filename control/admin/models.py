"""Registrations of control's own models, one module a concern.

Imported by `CollectorAdminConfig.ready`, when models are loaded.
"""

from __future__ import annotations
