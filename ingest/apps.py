"""Arms the ingest app: its tables become known to sinks and partitions, its rate to the heart."""

from __future__ import annotations

from django.apps import AppConfig


class IngestConfig(AppConfig):
    name = "ingest"
    verbose_name = "Records"

    def ready(self) -> None:
        from control.processes import heart
        from ingest import metrics, servicelogs
        from ingest.counters import problems, totals
        from ingest.tables import register_tables
        from ingest.wire import reread

        register_tables()
        totals.register()
        problems.register()
        reread.register()
        servicelogs.register()
        heart.every("ingest-rate", metrics.RATE_INTERVAL_S, metrics.refresh_rate, database=False)
