"""`manage.py prepare`: bring both databases up to date, and make the first account and key."""

from __future__ import annotations

import fcntl
import os
import secrets
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management import BaseCommand, CommandError, call_command
from django.db import DatabaseError, connections
from django.db import Error as DatabaseProblem
from django.db.migrations.executor import MigrationExecutor

from collector_site.preflight import PUT_OFF
from control.auth.bootstrap import bootstrap
from control.databases.causes import cause_of, is_loss, is_unprepared

# Any fixed number, the same for every process of the installation.
ADVISORY_LOCK = 0x0C011EC7
NAMES = {"default": "control", "records": "records"}
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 5.0


class Command(BaseCommand):
    help = (
        "Migrate the control and the records database, create the admin account on the first run "
        "(its password is printed once), and create the first API key from "
        "COLLECTOR_BOOTSTRAP_API_KEY. Safe to run any number of times, also at once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-admin", action="store_true", help="create no admin account")
        parser.add_argument("--admin-name", default="admin", help="its name (default: admin)")
        parser.add_argument(
            "--put-off",
            action="store_true",
            help=f"when a database is away do the rest and exit with {PUT_OFF}, so that the server "
            "can start without it",
        )
        parser.add_argument(
            "--until-done",
            action="store_true",
            help="while a database is away, try again until everything is prepared",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            away = self.attempt(options)
            if away and options["until_done"]:
                self.keep_trying(options)
                away = {}
        except DatabaseError as error:
            raise CommandError(
                f"The databases could not be prepared: {error}\n"
                "Check COLLECTOR_DATABASE_URL, and that the database accepts connections."
            ) from error
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        if not away:
            return
        told = "; ".join(
            f"the {NAMES[alias]} database is away: {why}" for alias, why in away.items()
        )
        if not options["put_off"]:
            raise CommandError(
                f"The databases could not be prepared: {told}.\n"
                "Check COLLECTOR_DATABASE_URL, and that the database accepts connections."
            )
        self.stdout.write(
            f"Not everything is prepared: {told}. The server starts without it; the preparation "
            "is tried again until it succeeds."
        )
        self.stdout.flush()
        sys.exit(PUT_OFF)

    def keep_trying(
        self, options: dict[str, Any], *, wait: Callable[[float], None] = time.sleep
    ) -> None:
        """Try until nothing is away any more. A mistake that is not an absence ends it."""
        pause = FIRST_PAUSE_S
        while True:
            wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
            if not self.attempt(options):
                break
        self.stdout.write("The databases are prepared now.")
        self.stdout.flush()

    def attempt(self, options: dict[str, Any]) -> dict[str, str]:
        """Do what can be done; the databases that are away, each with its cause."""
        away: dict[str, str] = {}
        for alias in self.aliases():
            try:
                with private_files(), one_at_a_time(alias):
                    self.migrate(alias)
                    if alias == "default":
                        self.first_account_and_key(options)
            except DatabaseProblem as error:
                if not is_loss(error) or is_unprepared(error):
                    raise
                away[alias] = cause_of(error)
            finally:
                connections[alias].close()
        return away

    def first_account_and_key(self, options: dict[str, Any]) -> None:
        if bootstrap():
            self.stdout.write("The first API key was created (COLLECTOR_BOOTSTRAP_API_KEY).")
        if not options["no_admin"]:
            self.create_admin(options["admin_name"])

    @staticmethod
    def aliases() -> list[str]:
        return ["default"] if settings.RECORDS_SHARE_DEFAULT else ["default", "records"]

    def migrate(self, alias: str) -> None:
        executor = MigrationExecutor(connections[alias])
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", database=alias, verbosity=0, interactive=False)
            self.stdout.write(f"Database {alias!r} is up to date.")

    def create_admin(self, name: str) -> None:
        users = get_user_model()._default_manager
        if users.exists():
            return
        password = secrets.token_urlsafe(15)
        get_user_model().objects.create_superuser(username=name, email="", password=password)
        self.stdout.write(
            "\nThe admin account was created. This password is not shown again:\n"
            f"    name      {name}\n"
            f"    password  {password}\n"
            f"(Lost it? .venv/bin/python manage.py changepassword {name})\n"
        )


@contextmanager
def private_files() -> Iterator[None]:
    """Files made meanwhile, the SQLite databases among them, are for their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def one_at_a_time(alias: str) -> Iterator[None]:
    """Two first starts in one moment must not both migrate: the second waits for the first."""
    data_dir = settings.COLLECTOR.server.data_dir
    data_dir.mkdir(parents=True, exist_ok=True)
    with open(data_dir / "prepare.lock", "w") as lock:
        # Connected first: who waits for a database does not keep the others waiting.
        connections[alias].ensure_connection()
        fcntl.flock(lock, fcntl.LOCK_EX)
        if connections[alias].vendor != "postgresql":
            yield
            return
        # Other machines share the database but not the data directory.
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])
