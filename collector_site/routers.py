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
# Models of other apps that are written like records.
RECORD_MODELS = frozenset({"healthmon.proberesult", "healthmon.rollup", "healthmon.rollupdue"})


def _home(app_label: str, model_name: str) -> str:
    stored = app_label in RECORD_APPS or f"{app_label}.{model_name}" in RECORD_MODELS
    return RECORDS if stored else CONTROL


def _home_of(model: type[models.Model]) -> str:
    return _home(model._meta.app_label, model._meta.model_name or "")


class CollectorRouter:
    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return _home_of(model)

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return _home_of(model)

    def allow_relation(self, first: models.Model, second: models.Model, **hints: Any) -> bool:
        return _home_of(type(first)) == _home_of(type(second))

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        if settings.RECORDS_SHARE_DEFAULT:
            return db == CONTROL
        if app_label in {"healthmon"} and "model_name" not in hints:
            # Data migrations and SQL say which model they are for.
            return db == CONTROL
        return db == _home(app_label, str(hints.get("model_name") or ""))
