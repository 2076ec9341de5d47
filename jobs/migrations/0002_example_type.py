"""A new installation has a job type to try; once deleted, it stays so."""

from django.db import migrations


def create(apps, schema_editor):
    from jobs.types.example import DESCRIPTION, NAME, SCHEMA, STEPS

    alias = schema_editor.connection.alias
    row, created = (
        apps.get_model("jobs", "JobType")
        .objects.using(alias)
        .get_or_create(name=NAME, defaults={"description": DESCRIPTION, "payload_schema": SCHEMA})
    )
    if created:
        steps = apps.get_model("jobs", "TypeStep")
        steps.objects.using(alias).bulk_create(
            steps(type=row, stage=stage, name=name, kind="handler", handler=handler)
            for stage, name, handler in STEPS
        )


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_jobs")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
