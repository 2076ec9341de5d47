"""Arms the ingest app: its tables become known to sinks, partitions and retention."""

from __future__ import annotations

from django.apps import AppConfig


class IngestConfig(AppConfig):
    name = "ingest"
    verbose_name = "Records"

    def ready(self) -> None:
        from ingest.tables import register_tables

        register_tables()
