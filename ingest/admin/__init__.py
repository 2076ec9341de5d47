"""Stored records in the admin: browsed, searched, read; never changed.

`filters` narrows by time and fields, `records` registers the models; `counters` are beside them.
"""

from __future__ import annotations

from ingest.admin import counters, records

__all__ = ["counters", "records"]
