"""The tables of records: by day of arrival on PostgreSQL, plain on SQLite."""

from django.db import migrations, models

import ingest.models
from control.partitions.operations import CreatePartitionedModel

TABLES = ("ingest_logrecord", "ingest_healthping", "ingest_auditevent")


def index_times(apps, schema_editor):
    """A block range index costs next to nothing to keep, as rows come nearly in order of time."""
    if schema_editor.connection.vendor != "postgresql":
        return
    for table in TABLES:
        schema_editor.execute(
            f"CREATE INDEX {table}_timestamp_brin ON {table} "
            "USING brin (timestamp) WITH (autosummarize = on)"
        )


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        CreatePartitionedModel(
            name="AuditEvent",
            fields=[
                ("id", ingest.models.RecordIdField(primary_key=True, serialize=False)),
                (
                    "timestamp",
                    models.DateTimeField(help_text="When it happened, by the sender's clock."),
                ),
                ("received_at", models.DateTimeField(help_text="When this server took it in.")),
                ("tenant", models.TextField()),
                ("payload", models.JSONField(help_text="The JSON as it was sent.")),
                ("user_id", models.TextField()),
                ("action", models.TextField()),
            ],
            options={"verbose_name": "audit event", "ordering": ["-id"]},
        ),
        CreatePartitionedModel(
            name="HealthPing",
            fields=[
                ("id", ingest.models.RecordIdField(primary_key=True, serialize=False)),
                (
                    "timestamp",
                    models.DateTimeField(help_text="When it happened, by the sender's clock."),
                ),
                ("received_at", models.DateTimeField(help_text="When this server took it in.")),
                ("tenant", models.TextField()),
                ("payload", models.JSONField(help_text="The JSON as it was sent.")),
                ("service", models.TextField()),
                ("status", models.TextField(help_text="up, degraded or down.")),
                ("latency_ms", models.FloatField(blank=True, null=True)),
            ],
            options={"verbose_name": "health ping", "ordering": ["-id"]},
        ),
        CreatePartitionedModel(
            name="LogRecord",
            fields=[
                ("id", ingest.models.RecordIdField(primary_key=True, serialize=False)),
                (
                    "timestamp",
                    models.DateTimeField(help_text="When it happened, by the sender's clock."),
                ),
                ("received_at", models.DateTimeField(help_text="When this server took it in.")),
                ("tenant", models.TextField()),
                ("payload", models.JSONField(help_text="The JSON as it was sent.")),
                (
                    "level",
                    models.TextField(help_text="TRACE, DEBUG, INFO, WARN, ERROR or FATAL."),
                ),
                ("service", models.TextField(blank=True)),
                ("message", models.TextField(blank=True)),
                ("trace_id", models.TextField(blank=True)),
                ("span_id", models.TextField(blank=True)),
            ],
            options={"verbose_name": "log record", "ordering": ["-id"]},
        ),
        migrations.RunPython(index_times, migrations.RunPython.noop),
    ]
