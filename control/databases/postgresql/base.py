"""The `DatabaseWrapper` that Django loads for `ENGINE = "control.databases.postgresql"`.

Each thread has one of its own for each alias.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base

from control.databases.reach import reach_of

NAMES = {"default": "control", "records": "records"}


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return reach_of(self.alias).attempt(
            lambda: self._connect(conn_params),
            error=self.Database.OperationalError,
            name=NAMES.get(self.alias, self.alias),
        )

    def _connect(self, conn_params: dict[str, Any]) -> Any:
        if self.pool and not reach_of(self.alias).proven:
            # The pool would wait out its own, longer timeout and hide the cause.
            self.Database.connect(**conn_params).close()
        return super().get_new_connection(conn_params)
