"""The control plane every app stands on."""

from __future__ import annotations

__version__ = "0.1.0"
