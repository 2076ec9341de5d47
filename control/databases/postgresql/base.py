"""The `DatabaseWrapper` that Django loads for `ENGINE = "control.databases.postgresql"`.

Each thread has one of its own for each alias.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base

from control.databases.causes import cause_of
from control.databases.deadline import Watch
from control.databases.reach import reach_of

# A server that takes longer to say nothing is taken for gone.
CHECK_S = 3.0
NAMES = {"default": "control", "records": "records"}


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return reach_of(self.alias).attempt(
            lambda: self._connect(conn_params),
            error=self.Database.OperationalError,
            name=NAMES.get(self.alias, self.alias),
        )

    def _connect(self, conn_params: dict[str, Any]) -> Any:
        reach = reach_of(self.alias)
        if self.pool and not reach.proven:
            # The pool would wait out its own, longer timeout and hide the cause.
            self.Database.connect(**conn_params).close()
        connection = super().get_new_connection(conn_params)
        while self.pool and not self._answers(connection):
            self.pool.putconn(connection)
            connection = super().get_new_connection(conn_params)
        reach.hold(connection)
        return connection

    def _answers(self, connection: Any) -> bool:
        """Whether a connection that lay in the pool still lives; the pool's own check is endless.

        What made one of them fall silent has met them all: no other of them is tried.
        """
        with Watch(lambda: connection, seconds=CHECK_S, name=self.alias) as watch:
            try:
                self.pool.check_connection(connection)
            except self.Database.Error:
                pass
            else:
                return True
        if watch.has_cut:
            self.pool.drain()
        return False

    def ask(self) -> str:
        """Why the database does not answer a connection of its own, "" when it does. Bounded."""
        try:
            self.Database.connect(**self.get_connection_params_without_pool()).close()
        except self.Database.OperationalError as error:
            return cause_of(error)
        return ""

    def get_connection_params_without_pool(self) -> dict[str, Any]:
        params: dict[str, Any] = self.get_connection_params()
        params.pop("pool", None)
        return params
