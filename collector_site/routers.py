"""Which database a model lives in: stored records in `records`, everything else in `default`.

When one PostgreSQL database serves both aliases, its one `django_migrations` table would tell
`migrate --database=records` that everything was applied already. So everything then migrates
through `default`, while reads and writes of records still use the `records` connections.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models

CONTROL = "default"
RECORDS = "records"
RECORD_APPS = frozenset({"ingest"})


def _home(app_label: str) -> str:
    return RECORDS if app_label in RECORD_APPS else CONTROL


class CollectorRouter:
    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return _home(model._meta.app_label)

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return _home(model._meta.app_label)

    def allow_relation(self, first: models.Model, second: models.Model, **hints: Any) -> bool:
        return _home(first._meta.app_label) == _home(second._meta.app_label)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        if settings.RECORDS_SHARE_DEFAULT:
            return db == CONTROL
        return db == _home(app_label)
