"""Targets and everything known of them; results by day of arrival on PostgreSQL."""
import django.core.validators
import django.db.models.deletion
import healthmon.history.models
import healthmon.notify.models
import healthmon.targets.numbers
from django.conf import settings
from django.db import migrations, models

from control.partitions.operations import CreatePartitionedModel


def index_times(apps, schema_editor):
    """A block range index costs next to nothing to keep, as rows come nearly in order of time."""
    if schema_editor.connection.vendor != "postgresql":
        return
    schema_editor.execute(
        "CREATE INDEX healthmon_proberesult_timestamp_brin ON healthmon_proberesult "
        "USING brin (timestamp) WITH (autosummarize = on)"
    )


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Channel',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100, unique=True)),
                ('kind', models.CharField(default='webhook', max_length=200)),
                ('options', models.JSONField(blank=True, default=dict)),
                ('secrets', models.JSONField(blank=True, default=dict, editable=False)),
                ('enabled', models.BooleanField(default=True)),
                ('rate_per_minute', models.PositiveIntegerField(default=30, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(6000)])),
                ('updated_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='Checker',
            fields=[
                ('id', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('host', models.CharField(blank=True, default='', max_length=255)),
                ('pid', models.IntegerField(default=0)),
                ('log_id', models.CharField(blank=True, default='', max_length=64)),
                ('expires_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Target',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200, unique=True)),
                ('kind', models.CharField(default='http', help_text='How it is probed.', max_length=200)),
                ('address', models.CharField(blank=True, default='', help_text='A URL, a host with a port, or a name, as the kind of probe asks for.', max_length=2000)),
                ('options', models.JSONField(blank=True, default=dict)),
                ('secrets', models.JSONField(blank=True, default=dict, editable=False)),
                ('interval_s', models.FloatField(default=30.0, help_text='Seconds from one probe to the next.', validators=[healthmon.targets.numbers.finite, django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(86400)], verbose_name='interval')),
                ('timeout_s', models.FloatField(default=10.0, help_text='Seconds that one probe may take in all.', validators=[healthmon.targets.numbers.finite, django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(120)], verbose_name='timeout')),
                ('retry_interval_s', models.FloatField(default=5.0, help_text='Seconds between probes while a change of status is being confirmed.', validators=[healthmon.targets.numbers.finite, django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(3600)], verbose_name='retry interval')),
                ('failure_threshold', models.PositiveSmallIntegerField(default=3, help_text='So many failures in a row make it down.', validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(20)])),
                ('success_threshold', models.PositiveSmallIntegerField(default=2, help_text='So many successes in a row make it up again.', validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(20)])),
                ('degraded_after_ms', models.FloatField(blank=True, help_text='Slower than this is degraded. Empty: never.', null=True, validators=[healthmon.targets.numbers.finite, django.core.validators.MinValueValidator(0.1)])),
                ('paused', models.BooleanField(default=False)),
                ('severity', models.CharField(choices=[('critical', 'critical'), ('warning', 'warning'), ('info', 'info')], default='critical', max_length=10)),
                ('notes', models.TextField(blank=True, default='', help_text='What to do when it is down.')),
                ('service', models.CharField(blank=True, default='', help_text="The service whose stored logs belong to it. Empty: the target's name.", max_length=200)),
                ('slo_percent', models.FloatField(blank=True, help_text='The uptime in percent that is aimed at. Empty: none.', null=True, validators=[healthmon.targets.numbers.finite, django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(99.9999)], verbose_name='objective')),
                ('slo_days', models.PositiveSmallIntegerField(default=30, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(90)], verbose_name="objective's window")),
                ('public', models.BooleanField(default=True, help_text='May be shown on status pages.')),
                ('badge', models.BooleanField(default=False, help_text='Its badges can be read by anyone.')),
                ('ping_digest', models.CharField(blank=True, editable=False, max_length=64, null=True, unique=True)),
                ('ping_hint', models.CharField(blank=True, default='', editable=False, max_length=8)),
                ('run_requested_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True, db_index=True)),
                ('owner', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('parents', models.ManyToManyField(blank=True, help_text='While one of them is down, this target is watched but alerts nobody.', related_name='children', to='healthmon.target')),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='ProbeSlot',
            fields=[
                ('slot', models.SmallIntegerField(primary_key=True, serialize=False)),
                ('holder', models.CharField(blank=True, default='', max_length=64)),
                ('epoch', models.BigIntegerField(default=0)),
                ('taken_at', models.DateTimeField(null=True)),
                ('expires_at', models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Tag',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=63, unique=True)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='TargetGroup',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100, unique=True)),
                ('order', models.SmallIntegerField(default=0, help_text='Lower stands first on status pages.')),
            ],
            options={
                'verbose_name': 'group',
                'ordering': ['order', 'name'],
            },
        ),
        migrations.CreateModel(
            name='Heartbeat',
            fields=[
                ('target', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='heartbeat', serialize=False, to='healthmon.target')),
                ('seq', models.BigIntegerField(default=0)),
                ('last_ping_at', models.DateTimeField(null=True)),
                ('last_start_at', models.DateTimeField(null=True)),
                ('last_success_at', models.DateTimeField(null=True)),
                ('last_fail_at', models.DateTimeField(null=True)),
                ('last_exit_code', models.IntegerField(null=True)),
                ('last_status', models.CharField(blank=True, default='', max_length=12)),
                ('last_error', models.CharField(blank=True, default='', max_length=500)),
                ('last_duration_ms', models.FloatField(null=True)),
                ('updated_at', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='TargetState',
            fields=[
                ('target', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='state', serialize=False, to='healthmon.target')),
                ('status', models.CharField(choices=[('new', 'new'), ('up', 'up'), ('degraded', 'degraded'), ('down', 'down'), ('unknown', 'unknown'), ('paused', 'paused'), ('maintenance', 'maintenance')], db_index=True, default='new', max_length=12)),
                ('since', models.DateTimeField(null=True)),
                ('seq', models.BigIntegerField(default=0)),
                ('epoch', models.BigIntegerField(default=0)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('flapping', models.BooleanField(default=False)),
                ('cert_expires_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Incident',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('opened_at', models.DateTimeField(db_index=True)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
                ('opened_seq', models.BigIntegerField()),
                ('cause', models.CharField(blank=True, default='', max_length=500)),
                ('severity', models.CharField(choices=[('critical', 'critical'), ('warning', 'warning'), ('info', 'info')], default='critical', max_length=10)),
                ('acknowledged_at', models.DateTimeField(blank=True, null=True)),
                ('postmortem', models.TextField(blank=True, default='')),
                ('public', models.BooleanField(default=True, help_text='Shown on status pages.')),
                ('acknowledged_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('suppressed_by', models.ForeignKey(blank=True, help_text='A parent that was down: this incident alerts nobody.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='healthmon.target')),
                ('target', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='incidents', to='healthmon.target')),
            ],
            options={
                'ordering': ['-opened_at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='IncidentEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('kind', models.CharField(choices=[('opened', 'opened'), ('flip', 'flip'), ('acknowledged', 'acknowledged'), ('comment', 'comment'), ('notified', 'notified'), ('closed', 'closed')], max_length=16)),
                ('text', models.TextField(blank=True, default='')),
                ('public', models.BooleanField(default=False, help_text='A comment for status pages.')),
                ('author', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('incident', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='entries', to='healthmon.incident')),
            ],
            options={
                'verbose_name_plural': 'incident entries',
                'ordering': ['at', 'id'],
            },
        ),
        migrations.CreateModel(
            name='Ping',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('record_id', models.BigIntegerField()),
                ('at', models.DateTimeField()),
                ('kind', models.CharField(max_length=10)),
                ('exit_code', models.IntegerField(null=True)),
                ('remote', models.CharField(blank=True, default='', max_length=64)),
                ('body', models.TextField(blank=True, default='')),
                ('duration_ms', models.FloatField(null=True)),
                ('target', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='pings', to='healthmon.target')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        CreatePartitionedModel(
            name='ProbeResult',
            fields=[
                ('id', healthmon.history.models.ResultIdField(primary_key=True, serialize=False)),
                ('timestamp', models.DateTimeField(help_text='When the probe began.')),
                ('target_id', models.BigIntegerField()),
                ('outcome', models.TextField(help_text="ok, degraded, failed or void (the checker's own fault).")),
                ('latency_ms', models.FloatField()),
                ('dns_ms', models.FloatField(null=True)),
                ('connect_ms', models.FloatField(null=True)),
                ('tls_ms', models.FloatField(null=True)),
                ('first_byte_ms', models.FloatField(null=True)),
                ('code', models.IntegerField(default=0)),
                ('address', models.TextField(blank=True, default='')),
                ('error', models.TextField(blank=True, default='')),
            ],
            options={
                'verbose_name': 'probe result',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['target_id', 'id'], name='healthmon_result_target')],
            },
        ),
        migrations.CreateModel(
            name='Rollup',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('target_id', models.BigIntegerField()),
                ('span_s', models.IntegerField()),
                ('start', models.DateTimeField()),
                ('ok', models.IntegerField(default=0)),
                ('degraded', models.IntegerField(default=0)),
                ('failed', models.IntegerField(default=0)),
                ('void', models.IntegerField(default=0)),
                ('latency_sum_ms', models.FloatField(default=0)),
                ('latency_max_ms', models.FloatField(default=0)),
                ('histogram', models.BinaryField(default=b'')),
            ],
            options={
                'indexes': [models.Index(fields=['span_s', 'start'], name='healthmon_rollup_start')],
                'constraints': [models.UniqueConstraint(fields=('target_id', 'span_s', 'start'), name='healthmon_rollup_once')],
            },
        ),
        migrations.CreateModel(
            name='RollupDue',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('span_s', models.IntegerField()),
                ('start', models.DateTimeField()),
                ('due', models.BooleanField(default=True)),
                ('touches', models.BigIntegerField(default=1)),
                ('first_id', models.BigIntegerField(default=0)),
                ('last_id', models.BigIntegerField(default=0)),
                ('touched_at', models.DateTimeField()),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('due', True)), fields=['span_s', 'start'], name='healthmon_rollup_due')],
                'constraints': [models.UniqueConstraint(fields=('span_s', 'start'), name='healthmon_rollup_due_once')],
            },
        ),
        migrations.AddField(
            model_name='target',
            name='tags',
            field=models.ManyToManyField(blank=True, related_name='targets', to='healthmon.tag'),
        ),
        migrations.AddField(
            model_name='target',
            name='group',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='targets', to='healthmon.targetgroup'),
        ),
        migrations.CreateModel(
            name='StatusPage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.SlugField(max_length=63, unique=True)),
                ('title', models.CharField(max_length=200)),
                ('description', models.TextField(blank=True, default='')),
                ('published', models.BooleanField(default=False)),
                ('show_uptime', models.BooleanField(default=True)),
                ('show_incidents', models.BooleanField(default=True)),
                ('show_latency', models.BooleanField(default=False)),
                ('show_ribbon', models.BooleanField(default=True)),
                ('show_maintenance', models.BooleanField(default=True)),
                ('show_groups', models.BooleanField(default=True, help_text='Otherwise one list of all.')),
                ('offer_rss', models.BooleanField(default=True)),
                ('offer_json', models.BooleanField(default=True)),
                ('offer_badge', models.BooleanField(default=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('tags', models.ManyToManyField(blank=True, related_name='+', to='healthmon.tag')),
                ('groups', models.ManyToManyField(blank=True, related_name='+', to='healthmon.targetgroup')),
            ],
            options={
                'verbose_name': 'status page',
                'ordering': ['title'],
            },
        ),
        migrations.CreateModel(
            name='NotificationRule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100, unique=True)),
                ('enabled', models.BooleanField(default=True)),
                ('events', models.JSONField(default=healthmon.notify.models._default_events)),
                ('min_severity', models.CharField(choices=[('critical', 'critical'), ('warning', 'warning'), ('info', 'info')], default='info', max_length=10)),
                ('group_wait_s', models.FloatField(default=5.0, help_text='Seconds to wait for more of the same, to be told in one message.', validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(600)])),
                ('reminder_every_s', models.PositiveIntegerField(default=0, help_text='Seconds between reminders of an open incident that nobody has acknowledged. 0: none.')),
                ('quiet_from', models.TimeField(blank=True, null=True)),
                ('quiet_until', models.TimeField(blank=True, null=True)),
                ('time_zone', models.CharField(default='UTC', max_length=64)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('channels', models.ManyToManyField(related_name='rules', to='healthmon.channel')),
                ('tags', models.ManyToManyField(blank=True, help_text='Targets with any of these. Empty: all.', related_name='+', to='healthmon.tag')),
                ('groups', models.ManyToManyField(blank=True, help_text='Targets of these. Empty: all.', related_name='+', to='healthmon.targetgroup')),
            ],
            options={
                'verbose_name': 'notification rule',
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='MaintenanceWindow',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('title', models.CharField(max_length=200)),
                ('description', models.TextField(blank=True, default='')),
                ('active', models.BooleanField(default=True)),
                ('starts_at', models.DateTimeField(help_text='The first time, or the only one.')),
                ('duration_s', models.PositiveIntegerField(default=3600, validators=[django.core.validators.MinValueValidator(60), django.core.validators.MaxValueValidator(2678400)], verbose_name='duration')),
                ('cron', models.CharField(blank=True, default='', help_text='When it begins again: five cron fields. Empty: once.', max_length=100)),
                ('time_zone', models.CharField(default='UTC', max_length=64)),
                ('ends_at', models.DateTimeField(blank=True, help_text='No recurrence begins after this. Empty: never.', null=True)),
                ('all_targets', models.BooleanField(default=False)),
                ('public', models.BooleanField(default=True, help_text='Announced on status pages.')),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('targets', models.ManyToManyField(blank=True, related_name='maintenance_windows', to='healthmon.target')),
                ('tags', models.ManyToManyField(blank=True, related_name='maintenance_windows', to='healthmon.tag')),
                ('groups', models.ManyToManyField(blank=True, related_name='maintenance_windows', to='healthmon.targetgroup')),
            ],
            options={
                'ordering': ['-starts_at'],
            },
        ),
        migrations.CreateModel(
            name='Flip',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('seq', models.BigIntegerField()),
                ('from_status', models.CharField(choices=[('new', 'new'), ('up', 'up'), ('degraded', 'degraded'), ('down', 'down'), ('unknown', 'unknown'), ('paused', 'paused'), ('maintenance', 'maintenance')], max_length=12)),
                ('to_status', models.CharField(choices=[('new', 'new'), ('up', 'up'), ('degraded', 'degraded'), ('down', 'down'), ('unknown', 'unknown'), ('paused', 'paused'), ('maintenance', 'maintenance')], max_length=12)),
                ('at', models.DateTimeField()),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('flapping', models.BooleanField(default=False)),
                ('epoch', models.BigIntegerField(default=0)),
                ('checker', models.CharField(blank=True, default='', max_length=64)),
                ('stored_at', models.DateTimeField(auto_now_add=True)),
                ('target', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='flips', to='healthmon.target')),
            ],
            options={
                'ordering': ['-at', '-id'],
                'indexes': [models.Index(fields=['target', 'at'], name='healthmon_flip_target_at'), models.Index(fields=['at'], name='healthmon_flip_at')],
                'constraints': [models.UniqueConstraint(fields=('target', 'seq'), name='healthmon_flip_once')],
            },
        ),
        migrations.CreateModel(
            name='BurnAlert',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('pace', models.CharField(choices=[('fast', 'fast'), ('slow', 'slow')], max_length=8)),
                ('fired_at', models.DateTimeField(db_index=True)),
                ('cleared_at', models.DateTimeField(blank=True, null=True)),
                ('burn', models.FloatField(help_text='How many times as fast as the objective allows.')),
                ('target', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='burn_alerts', to='healthmon.target')),
            ],
            options={
                'ordering': ['-fired_at', '-id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('cleared_at__isnull', True)), fields=('target', 'pace'), name='healthmon_burn_once')],
            },
        ),
        migrations.AddIndex(
            model_name='incident',
            index=models.Index(condition=models.Q(('closed_at__isnull', True)), fields=['target'], name='healthmon_incident_open'),
        ),
        migrations.AddConstraint(
            model_name='incident',
            constraint=models.UniqueConstraint(fields=('target', 'opened_seq'), name='healthmon_incident_once'),
        ),
        migrations.AddIndex(
            model_name='ping',
            index=models.Index(fields=['target', '-id'], name='healthmon_ping_target'),
        ),
        migrations.AddConstraint(
            model_name='ping',
            constraint=models.UniqueConstraint(fields=('target', 'record_id'), name='healthmon_ping_once'),
        ),
        migrations.CreateModel(
            name='Notice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=150, unique=True)),
                ('event', models.CharField(choices=[('down', 'down'), ('recovered', 'recovered'), ('degraded', 'degraded'), ('unknown', 'unknown'), ('flapping', 'flapping'), ('slo', 'slo'), ('certificate', 'certificate'), ('reminder', 'reminder')], max_length=12)),
                ('at', models.DateTimeField(help_text='When it happened.')),
                ('due_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('waiting', 'waiting'), ('told', 'told'), ('dropped', 'dropped')], default='waiting', max_length=8)),
                ('held', models.CharField(blank=True, default='', max_length=8)),
                ('why', models.CharField(blank=True, default='', max_length=200)),
                ('is_open', models.BooleanField(default=False)),
                ('reminders', models.PositiveIntegerField(default=0)),
                ('details', models.JSONField(default=dict)),
                ('message_key', models.CharField(blank=True, default='', max_length=200)),
                ('told_at', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField()),
                ('channel', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='notices', to='healthmon.channel')),
                ('incident', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='notices', to='healthmon.incident')),
                ('rule', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='healthmon.notificationrule')),
                ('target', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='healthmon.target')),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(condition=models.Q(('state', 'waiting')), fields=['due_at'], name='healthmon_notice_due'), models.Index(condition=models.Q(('is_open', True)), fields=['target'], name='healthmon_notice_open'), models.Index(fields=['created_at'], name='healthmon_notice_created')],
            },
        ),
        migrations.RunPython(
            index_times, migrations.RunPython.noop, hints={"model_name": "proberesult"}
        ),
    ]
