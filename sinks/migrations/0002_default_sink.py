"""A new installation stores everything in its own database until somebody says otherwise."""

from django.db import migrations


def create(apps, schema_editor):
    from sinks.defaults import DEFAULT_BACKEND, DEFAULT_ID, DEFAULT_NAME

    rows = apps.get_model("sinks", "SinkConfig").objects.using(schema_editor.connection.alias)
    fields = {"id": DEFAULT_ID, "backend": DEFAULT_BACKEND, "required": True}
    rows.get_or_create(name=DEFAULT_NAME, defaults=fields)


class Migration(migrations.Migration):
    dependencies = [("sinks", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
