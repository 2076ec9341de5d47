"""The tables of counters: what increments add up to, in all and minute by minute of arrival."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ingest', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Counter',
            fields=[
                ('key', models.CharField(editable=False, max_length=32, primary_key=True, serialize=False)),
                ('tenant', models.TextField()),
                ('name', models.TextField()),
                ('labels', models.JSONField(default=dict)),
                ('value', models.BigIntegerField(help_text='The sum; it stops at ±9,223,372,036,854,775,807.')),
                ('increments', models.BigIntegerField(help_text='How many records added to it.')),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
            ],
            options={
                'ordering': ['tenant', 'name', 'key'],
                'indexes': [models.Index(fields=['tenant', 'name', 'key'], name='ingest_counter_name')],
            },
        ),
        migrations.CreateModel(
            name='CounterPoint',
            fields=[
                ('pk', models.CompositePrimaryKey('counter', 'minute', blank=True, editable=False, primary_key=True, serialize=False)),
                ('counter', models.CharField(max_length=32)),
                ('minute', models.DateTimeField()),
                ('added', models.BigIntegerField()),
                ('increments', models.BigIntegerField()),
            ],
            options={
                'indexes': [models.Index(fields=['minute'], name='ingest_counterpoint_minute')],
            },
        ),
    ]
