"""A change of keys or tenants made in this process takes effect in it at once.

Other processes learn of it from their heart's watcher. Signal receivers run on the changing
thread.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save

from control.auth.keys import keyring
from control.auth.models import ApiKey, Tenant

_UID = "control.auth.changes"


def connect() -> None:
    for model in (ApiKey, Tenant):
        post_save.connect(_changed, sender=model, dispatch_uid=_UID)
        post_delete.connect(_changed, sender=model, dispatch_uid=_UID)


def _changed(using: str, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    if update_fields is not None and update_fields <= {"last_used_at", "name"}:
        return
    # Now for readers in the same transaction; after the commit for everybody else.
    keyring().invalidate()
    transaction.on_commit(keyring().invalidate, using=using)
