"""A change of keys or tenants made in this process takes effect in it at once.

Other processes learn of it from their heart's watcher. Signal receivers run on the changing
thread.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import Error as DatabaseProblem
from django.db import transaction
from django.db.models.signals import post_delete, post_save

from control.auth.keys import keyring
from control.auth.models import ApiKey, Tenant

logger = logging.getLogger(__name__)

_UID = "control.auth.changes"


def connect() -> None:
    for model in (ApiKey, Tenant):
        post_save.connect(_changed, sender=model, dispatch_uid=_UID)
        post_delete.connect(_changed, sender=model, dispatch_uid=_UID)


def _changed(using: str, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    if update_fields is not None and update_fields <= {"last_used_at", "name"}:
        return
    changed(using=using)


def changed(*, using: str | None = None) -> None:
    """Have this process know of changed keys: this thread now, the others after the commit.

    The changing thread reads them again, which has a database that answers; a request of ingest
    never does.
    """
    keyring().invalidate()
    transaction.on_commit(_read_again, using=using)


def _read_again() -> None:
    try:
        keyring().refresh()
    except DatabaseProblem as error:
        # The heart's watcher reads them as soon as the database answers again.
        logger.warning(
            "the changed API keys were not read yet", extra={"error": type(error).__name__}
        )
