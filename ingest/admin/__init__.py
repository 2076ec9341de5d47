"""Stored records in the admin: browsed, searched, read; never changed.

`filters` narrows by time and fields, `records` registers the models.
"""

from __future__ import annotations

from ingest.admin import records

__all__ = ["records"]
