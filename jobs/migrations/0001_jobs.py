"""Jobs, their types and downstreams, their story, and what they add up to."""

import django.core.serializers.json
import django.core.validators
import django.db.models.deletion
import jobs.ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='DownstreamService',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=63, unique=True, validators=[django.core.validators.RegexValidator('^[a-z0-9][a-z0-9\\-_.]{0,62}\\Z', "Use 1 to 63 lower-case letters, digits, '-', '_' or '.', the first a letter or digit.", code='name')])),
                ('base_url', models.CharField(max_length=500, verbose_name='base URL')),
                ('headers', models.JSONField(blank=True, default=dict)),
                ('secret_headers', models.JSONField(blank=True, default=dict)),
                ('timeout_s', models.FloatField(default=10.0, validators=[django.core.validators.MinValueValidator(0.05)])),
                ('expected_status', models.CharField(default='200-299', help_text='Statuses and ranges, such as 200-299,304.', max_length=100)),
                ('max_response_bytes', models.PositiveIntegerField(default=1048576)),
                ('follow_redirects', models.BooleanField(default=False)),
                ('verify_tls', models.BooleanField(default=True, verbose_name='verify TLS')),
                ('rate_per_s', models.FloatField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0.001)])),
                ('burst', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('max_concurrent', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('breaker_rule', models.CharField(choices=[('ratio', 'a share of the calls of a window failed'), ('consecutive', 'so many calls in a row failed'), ('off', 'never')], default='ratio', max_length=12)),
                ('breaker_ratio', models.FloatField(default=0.6, validators=[django.core.validators.MinValueValidator(0.01), django.core.validators.MaxValueValidator(1.0)])),
                ('breaker_min_calls', models.PositiveIntegerField(default=3, validators=[django.core.validators.MinValueValidator(1)])),
                ('breaker_window_s', models.FloatField(default=60.0, validators=[django.core.validators.MinValueValidator(1.0)])),
                ('breaker_consecutive', models.PositiveIntegerField(default=5, validators=[django.core.validators.MinValueValidator(1)])),
                ('breaker_open_s', models.FloatField(default=10.0, validators=[django.core.validators.MinValueValidator(0.1)])),
                ('breaker_probes', models.PositiveIntegerField(default=1, validators=[django.core.validators.MinValueValidator(1)])),
                ('notes', models.TextField(blank=True, default='')),
                ('updated_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='Job',
            fields=[
                ('id', models.UUIDField(default=jobs.ids.new_job_id, editable=False, primary_key=True, serialize=False)),
                ('tenant', models.CharField(default='default', max_length=63)),
                ('state', models.CharField(choices=[('scheduled', 'scheduled'), ('queued', 'queued'), ('running', 'running'), ('succeeded', 'succeeded'), ('dead', 'dead'), ('cancelled', 'cancelled'), ('discarded', 'discarded')], default='queued', max_length=9)),
                ('reason', models.CharField(blank=True, default='', max_length=16)),
                ('priority', models.PositiveSmallIntegerField(default=5)),
                ('payload', models.JSONField(default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('correlation_id', models.CharField(blank=True, default='', max_length=128)),
                ('service', models.CharField(blank=True, default='', max_length=200)),
                ('submitted_by', models.CharField(blank=True, default='', max_length=200)),
                ('request_id', models.CharField(blank=True, default='', max_length=128)),
                ('traceparent', models.CharField(blank=True, default='', max_length=64)),
                ('webhook_url', models.CharField(blank=True, default='', max_length=500)),
                ('schedule', models.CharField(blank=True, default='', max_length=63)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('claim', models.PositiveIntegerField(default=0)),
                ('retries', models.PositiveIntegerField(default=0, help_text='How often somebody asked for more.')),
                ('created_at', models.DateTimeField()),
                ('run_at', models.DateTimeField()),
                ('deadline_at', models.DateTimeField(blank=True, null=True)),
                ('started_at', models.DateTimeField(blank=True, help_text='Of the last attempt.', null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('runner', models.CharField(blank=True, default='', max_length=32)),
                ('worker', models.CharField(blank=True, default='', max_length=64)),
                ('cancel_asked_at', models.DateTimeField(blank=True, null=True)),
                ('result', models.JSONField(blank=True, encoder=django.core.serializers.json.DjangoJSONEncoder, null=True)),
                ('error', models.TextField(blank=True, default='')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='JobType',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=63, unique=True, validators=[django.core.validators.RegexValidator('^[a-z0-9][a-z0-9\\-_.]{0,62}\\Z', "Use 1 to 63 lower-case letters, digits, '-', '_' or '.', the first a letter or digit.", code='name')])),
                ('description', models.TextField(blank=True, default='')),
                ('enabled', models.BooleanField(default=True, help_text='A type that is not takes no jobs; those it has wait.')),
                ('payload_schema', models.JSONField(blank=True, default=dict, help_text='JSON Schema (2020-12) of the payload; empty: any.')),
                ('aggregation', models.CharField(choices=[('all', 'all steps must succeed'), ('any', 'one step must succeed'), ('quorum', 'a number of steps must succeed'), ('collect', 'take what there is: at least one step must succeed')], default='all', max_length=8)),
                ('quorum', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('default_priority', models.PositiveSmallIntegerField(default=5, validators=[django.core.validators.MaxValueValidator(9)])),
                ('max_attempts', models.PositiveIntegerField(default=8, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1000)])),
                ('backoff_base_s', models.FloatField(default=1.0, validators=[django.core.validators.MinValueValidator(0.001)])),
                ('backoff_cap_s', models.FloatField(default=60.0, validators=[django.core.validators.MinValueValidator(0.001)])),
                ('deadline_s', models.FloatField(default=3600.0, help_text='Seconds from when a job may first run; then it is dead.', validators=[django.core.validators.MinValueValidator(0.1)])),
                ('max_concurrent', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('rate_per_s', models.FloatField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0.001)])),
                ('burst', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('keep_succeeded_days', models.PositiveIntegerField(blank=True, null=True)),
                ('keep_dead_days', models.PositiveIntegerField(blank=True, null=True)),
                ('keep_cancelled_days', models.PositiveIntegerField(blank=True, null=True)),
                ('webhook_url', models.CharField(blank=True, default='', max_length=500, verbose_name='webhook URL')),
                ('webhook_secret', models.TextField(blank=True, default='')),
                ('job_webhooks', models.BooleanField(default=True, help_text='A job may name a webhook of its own.')),
                ('updated_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='Runner',
            fields=[
                ('id', models.CharField(max_length=32, primary_key=True, serialize=False)),
                ('host', models.CharField(blank=True, default='', max_length=255)),
                ('pid', models.PositiveIntegerField(default=0)),
                ('process', models.CharField(blank=True, default='', max_length=36)),
                ('started_at', models.DateTimeField()),
                ('seen_at', models.DateTimeField()),
                ('beats', models.PositiveBigIntegerField(default=0)),
                ('figures', models.JSONField(blank=True, default=dict)),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='BulkAction',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('action', models.CharField(choices=[('retry', 'retry'), ('cancel', 'cancel'), ('reprioritise', 'reprioritise'), ('discard', 'discard')], max_length=12)),
                ('args', models.JSONField(blank=True, default=dict)),
                ('selection', models.JSONField(default=dict)),
                ('until_id', models.UUIDField(blank=True, null=True)),
                ('position', models.UUIDField(blank=True, null=True)),
                ('created_at', models.DateTimeField()),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('stopped', models.BooleanField(default=False, help_text='An operator had it stop.')),
                ('expected', models.BigIntegerField(blank=True, null=True)),
                ('looked_at', models.BigIntegerField(default=0)),
                ('changed', models.BigIntegerField(default=0)),
                ('error', models.CharField(blank=True, default='', max_length=500)),
                ('owner', models.CharField(blank=True, default='', max_length=100)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('asked_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='JobEvent',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
                ('state', models.CharField(help_text='What it became.', max_length=9)),
                ('claim', models.PositiveIntegerField(default=0)),
                ('attempt', models.PositiveIntegerField(default=0)),
                ('worker', models.CharField(blank=True, default='', max_length=64)),
                ('text', models.TextField(blank=True, default='')),
                ('job', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='events', to='jobs.job')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='TypeGate',
            fields=[
                ('type', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='+', serialize=False, to='jobs.jobtype')),
                ('level', models.FloatField(default=0.0)),
                ('at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='JobTally',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('state', models.CharField(max_length=9)),
                ('at', models.DateTimeField()),
                ('entered', models.IntegerField(default=0)),
                ('left', models.IntegerField(default=0)),
                ('seconds', models.FloatField(default=0.0)),
                ('type', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='jobs.jobtype')),
            ],
        ),
        migrations.CreateModel(
            name='JobSchedule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=63, unique=True, validators=[django.core.validators.RegexValidator('^[a-z0-9][a-z0-9\\-_.]{0,62}\\Z', "Use 1 to 63 lower-case letters, digits, '-', '_' or '.', the first a letter or digit.", code='name')])),
                ('cron', models.CharField(max_length=100)),
                ('timezone', models.CharField(default='UTC', max_length=63)),
                ('payload', models.JSONField(blank=True, default=dict)),
                ('priority', models.PositiveSmallIntegerField(blank=True, null=True, validators=[django.core.validators.MaxValueValidator(9)])),
                ('service', models.CharField(blank=True, default='', max_length=200)),
                ('tenant', models.CharField(default='default', max_length=63)),
                ('enabled', models.BooleanField(default=True)),
                ('missed', models.CharField(choices=[('once', 'run once, late'), ('skip', 'wait for the next time')], default='once', help_text='What becomes of times at which no runner was there.', max_length=4)),
                ('overlap', models.BooleanField(default=True, help_text='Submit also while the last job of this schedule has not ended.')),
                ('next_at', models.DateTimeField(blank=True, db_index=True, null=True)),
                ('last_at', models.DateTimeField(blank=True, null=True)),
                ('last_job', models.UUIDField(blank=True, null=True)),
                ('last_error', models.CharField(blank=True, default='', max_length=500)),
                ('type', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='schedules', to='jobs.jobtype')),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.AddField(
            model_name='job',
            name='type',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='jobs', to='jobs.jobtype'),
        ),
        migrations.CreateModel(
            name='TypeStep',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('stage', models.PositiveSmallIntegerField(default=1, validators=[django.core.validators.MinValueValidator(1)])),
                ('name', models.CharField(max_length=63, validators=[django.core.validators.RegexValidator('^[a-z0-9][a-z0-9\\-_.]{0,62}\\Z', "Use 1 to 63 lower-case letters, digits, '-', '_' or '.', the first a letter or digit.", code='name')])),
                ('kind', models.CharField(choices=[('call', 'call a downstream service'), ('handler', 'run a Python function')], default='call', max_length=8)),
                ('method', models.CharField(choices=[('GET', 'GET'), ('POST', 'POST'), ('PUT', 'PUT'), ('PATCH', 'PATCH'), ('DELETE', 'DELETE'), ('HEAD', 'HEAD')], default='POST', max_length=8)),
                ('path', models.CharField(blank=True, default='', help_text='Below the base URL, such as /users/{payload.user_id}.', max_length=500)),
                ('headers', models.JSONField(blank=True, default=dict)),
                ('body', models.JSONField(blank=True, help_text='JSON with {references}; empty: the payload itself.', null=True)),
                ('expected_status', models.CharField(blank=True, default='', max_length=100)),
                ('timeout_s', models.FloatField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0.05)])),
                ('handler', models.CharField(blank=True, default='', max_length=200)),
                ('downstream', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='steps', to='jobs.downstreamservice')),
                ('type', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='steps', to='jobs.jobtype')),
            ],
            options={
                'ordering': ['stage', 'id'],
            },
        ),
        migrations.CreateModel(
            name='JobStep',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=63)),
                ('stage', models.PositiveSmallIntegerField(default=1)),
                ('state', models.CharField(choices=[('running', 'running'), ('succeeded', 'succeeded'), ('failed', 'failed'), ('retrying', 'retrying'), ('skipped', 'skipped')], max_length=10)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('duration_ms', models.FloatField(blank=True, null=True)),
                ('status_code', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('result', models.JSONField(blank=True, encoder=django.core.serializers.json.DjangoJSONEncoder, null=True)),
                ('error', models.TextField(blank=True, default='')),
                ('job', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='steps', to='jobs.job')),
            ],
            options={
                'ordering': ['stage', 'id'],
                'constraints': [models.UniqueConstraint(fields=('job', 'name'), name='jobs_jobstep_once')],
            },
        ),
        migrations.CreateModel(
            name='JobMinute',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True)),
                ('submitted', models.BigIntegerField(default=0)),
                ('started', models.BigIntegerField(default=0)),
                ('succeeded', models.BigIntegerField(default=0)),
                ('dead', models.BigIntegerField(default=0)),
                ('cancelled', models.BigIntegerField(default=0)),
                ('seconds', models.FloatField(default=0.0)),
                ('queued', models.BigIntegerField(default=0)),
                ('scheduled', models.BigIntegerField(default=0)),
                ('running', models.BigIntegerField(default=0)),
                ('type', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='minutes', to='jobs.jobtype')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('type', 'at'), name='jobs_jobminute_once')],
            },
        ),
        migrations.CreateModel(
            name='JobCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('state', models.CharField(max_length=9)),
                ('jobs', models.BigIntegerField(default=0)),
                ('type', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='counts', to='jobs.jobtype')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('type', 'state'), name='jobs_jobcount_once')],
            },
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('state', 'queued')), fields=['type', '-priority', 'id'], name='jobs_job_queued'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('state', 'scheduled')), fields=['run_at'], name='jobs_job_scheduled'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('state', 'running')), fields=['runner'], name='jobs_job_running'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['state', 'id'], name='jobs_job_state'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['type', 'id', 'state'], name='jobs_job_type'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['correlation_id', 'id'], name='jobs_job_correlation'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['service', 'id'], name='jobs_job_service'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('tenant', 'default'), _negated=True), fields=['tenant', 'id'], name='jobs_job_tenant'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['state', 'finished_at'], name='jobs_job_finished'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['type', 'state', 'finished_at'], name='jobs_job_kept'),
        ),
        migrations.AddConstraint(
            model_name='typestep',
            constraint=models.UniqueConstraint(fields=('type', 'name'), name='jobs_typestep_once'),
        ),
    ]
