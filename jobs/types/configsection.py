"""Downstream services, job types with their steps, and schedules as configuration.

By name.  Secrets leave only as references to the environment; one that is stored here is named in
`secrets`, and kept when the file is applied to the same installation.
"""

from __future__ import annotations

from typing import Any

from control.auth.models import Tenant
from control.config.export import Entry, EntryError, register_section
from jobs.schedules.problems import schedule_problems
from jobs.store.models import Job
from jobs.types import configsteps
from jobs.types.configfields import Column, Hidden, texts
from jobs.types.configrows import Document, RowSection, names_in, refuse
from jobs.types.models import DownstreamService, JobSchedule, JobType, TypeStep
from jobs.types.problems import downstream_problems, step_problems, type_problems
from sinks.secrets import SecretError, decrypt, encrypt, is_reference

DOWNSTREAMS, TYPES, SCHEDULES = "downstreams", "job_types", "job_schedules"
WEBHOOK_SECRET = "webhook_secret"  # noqa: S105


def _columns(kind: type, *names: str, optional: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name=name, kind=kind, optional=optional) for name in names)


class DownstreamSection(RowSection[DownstreamService]):
    name = DOWNSTREAMS
    order = 200
    noun = "downstream service"
    columns = (
        *_columns(str, "base_url"),
        *_columns(dict, "headers"),
        *_columns(float, "timeout_s"),
        *_columns(str, "expected_status"),
        *_columns(int, "max_response_bytes"),
        *_columns(bool, "follow_redirects", "verify_tls"),
        *_columns(float, "rate_per_s", optional=True),
        *_columns(int, "burst", "max_concurrent", optional=True),
        *_columns(str, "breaker_rule"),
        *_columns(float, "breaker_ratio"),
        *_columns(int, "breaker_min_calls"),
        *_columns(float, "breaker_window_s"),
        *_columns(int, "breaker_consecutive"),
        *_columns(float, "breaker_open_s"),
        *_columns(int, "breaker_probes"),
        *_columns(str, "notes"),
    )
    more = {"secret_headers": dict, "secrets": list}

    def shown(self, row: DownstreamService) -> Entry:
        stored: dict[str, str] = row.secret_headers
        open_ = {name: value for name, value in stored.items() if is_reference(value)}
        entry: Entry = {"secret_headers": open_}
        if len(open_) < len(stored):
            entry["secrets"] = sorted(stored.keys() - open_.keys())
        return entry

    def told(self, row: DownstreamService) -> dict[str, Any]:
        return {
            f"secret_headers.{name}": value if is_reference(value) else Hidden(value)
            for name, value in row.secret_headers.items()
        }

    def take(self, row: DownstreamService, entry: Entry, document: Document, where: str) -> None:
        if "secret_headers" not in entry and "secrets" not in entry:
            return
        stored: dict[str, str] = row.secret_headers
        given = entry.get("secret_headers", {})
        held = {}
        for name, value in given.items():
            if not isinstance(value, str) or not value:
                raise EntryError(f'{where}: secret_headers.{name} must be a text, "env:NAME" best')
            held[name] = _stored_secret(value, stored.get(name, ""), f"{row.name}: {name}")
        for name in texts(entry, "secrets", where=where):
            if name in held:
                continue
            if name not in stored:
                raise EntryError(
                    f"{where}: the secret {name} is not stored here and not in the file; "
                    f'give {name} = "env:NAME" among its secret_headers'
                )
            held[name] = stored[name]
        row.secret_headers = held

    def check(self, row: DownstreamService, document: Document, where: str) -> None:
        refuse(downstream_problems(row), where)

    def save(
        self, row: DownstreamService, existing: DownstreamService | None, columns: list[str]
    ) -> None:
        row.save() if existing is None else row.save(update_fields=[*columns, "updated_at"])

    def check_removal(self, row: DownstreamService, document: Document) -> None:
        """It may go with the types that call it, or when these call it no more."""
        entries = {e.get("name"): e for e in document.get(TYPES, ()) if isinstance(e, dict)}
        steps = TypeStep.objects.filter(downstream=row).values_list("type__name", flat=True)
        for name in sorted(set(steps)):
            entry = entries.get(name)
            goes = TYPES in document if entry is None else "steps" in entry
            if not goes:
                raise EntryError(
                    f'{self.noun} "{row.name}": the job type {name!r} calls it; '
                    "change or remove that first"
                )

    def remove(self, row: DownstreamService) -> None:
        # Of types that go, or get other steps, later in the same transaction.
        TypeStep.objects.filter(downstream=row).delete()
        row.delete()


class TypeSection(RowSection[JobType]):
    name = TYPES
    order = 210
    noun = "job type"
    columns = (
        *_columns(str, "description"),
        *_columns(bool, "enabled"),
        Column(name="payload_schema", kind=dict, json=True),
        *_columns(str, "aggregation"),
        *_columns(int, "quorum", optional=True),
        *_columns(int, "default_priority", "max_attempts"),
        *_columns(float, "backoff_base_s", "backoff_cap_s", "deadline_s"),
        *_columns(int, "max_concurrent", optional=True),
        *_columns(float, "rate_per_s", optional=True),
        *_columns(int, "burst", optional=True),
        *_columns(
            int, "keep_succeeded_days", "keep_dead_days", "keep_cancelled_days", optional=True
        ),
        *_columns(str, "webhook_url"),
        *_columns(bool, "job_webhooks"),
    )
    more = {WEBHOOK_SECRET: str, "secrets": list, "steps": list}

    def rows(self) -> dict[str, JobType]:
        found = super().rows()
        by_pk = {row.pk: row for row in found.values()}
        for row in found.values():
            _keep_steps(row, [])
        for step in TypeStep.objects.select_related("downstream").order_by("stage", "pk"):
            if step.type_id in by_pk:
                called = step.downstream.name if step.downstream is not None else ""
                _steps_of(by_pk[step.type_id]).append((step, called))
        return found

    def shown(self, row: JobType) -> Entry:
        entry: Entry = {}
        if not row.webhook_secret or is_reference(row.webhook_secret):
            entry[WEBHOOK_SECRET] = row.webhook_secret
        else:
            entry["secrets"] = [WEBHOOK_SECRET]
        entry["steps"] = [configsteps.shown(step, called) for step, called in _steps_of(row)]
        return entry

    def told(self, row: JobType) -> dict[str, Any]:
        secret = row.webhook_secret
        steps = {
            f"steps.{step.name}": configsteps.shown(step, called) for step, called in _steps_of(row)
        }
        return {WEBHOOK_SECRET: secret if is_reference(secret) else Hidden(secret), **steps}

    def take(self, row: JobType, entry: Entry, document: Document, where: str) -> None:
        keep = texts(entry, "secrets", where=where)
        if set(keep) - {WEBHOOK_SECRET}:
            raise EntryError(f"{where}: secrets can only name {WEBHOOK_SECRET}")
        if WEBHOOK_SECRET in entry:
            wanted: str = entry[WEBHOOK_SECRET]
            row.webhook_secret = (
                _stored_secret(wanted, row.webhook_secret, f"{row.name}: {WEBHOOK_SECRET}")
                if wanted
                else ""
            )
        elif keep and not row.webhook_secret:
            raise EntryError(
                f"{where}: the secret {WEBHOOK_SECRET} is not stored here and not in the file; "
                f'give {WEBHOOK_SECRET} = "env:NAME"'
            )
        if "steps" in entry:
            _keep_steps(
                row,
                configsteps.taken(
                    entry["steps"],
                    known=_known(DownstreamService, document, DOWNSTREAMS),
                    where=where,
                ),
            )

    def check(self, row: JobType, document: Document, where: str) -> None:
        steps = [step for step, _ in _steps_of(row)]
        refuse(type_problems(row, steps), where)
        for step, called in _steps_of(row):
            found = step_problems(step, steps, row.payload_schema)
            if called:
                found.pop("downstream", None)
            refuse(found, f'{where}, step "{step.name}"')

    def save(self, row: JobType, existing: JobType | None, columns: list[str]) -> None:
        row.save() if existing is None else row.save(update_fields=[*columns, "updated_at"])
        configsteps.save(row, _steps_of(row))

    def check_removal(self, row: JobType, document: Document) -> None:
        if Job.objects.filter(type=row).exists():
            raise EntryError(
                f'{self.noun} "{row.name}": there are jobs of it; set enabled = false, and remove '
                "it when they are past their time"
            )


class ScheduleSection(RowSection[JobSchedule]):
    name = SCHEDULES
    order = 220
    noun = "job schedule"
    columns = (
        *_columns(str, "cron", "timezone"),
        Column(name="payload", kind=object, json=True),
        *_columns(int, "priority", optional=True),
        *_columns(str, "service", "tenant"),
        *_columns(bool, "enabled"),
        *_columns(str, "missed"),
        *_columns(bool, "overlap"),
    )
    more = {"type": str}
    unchecked = ("type",)

    def rows(self) -> dict[str, JobSchedule]:
        found = JobSchedule.objects.select_related("type").order_by("name")
        rows = {row.name: row for row in found}
        for row in rows.values():
            row.__dict__[_TYPE] = row.type.name
        return rows

    def shown(self, row: JobSchedule) -> Entry:
        return {"type": row.__dict__.get(_TYPE, "")}

    def take(self, row: JobSchedule, entry: Entry, document: Document, where: str) -> None:
        name = entry.get("type", row.__dict__.get(_TYPE, ""))
        if not name:
            raise EntryError(f"{where}: type is missing")
        if name not in _known(JobType, document, TYPES):
            raise EntryError(
                f"{where}: type names {name!r}, which is neither in the file's [[{TYPES}]] nor here"
            )
        row.__dict__[_TYPE] = name

    def check(self, row: JobSchedule, document: Document, where: str) -> None:
        name = row.__dict__[_TYPE]
        tenants = names_in(document, "tenants", "slug")
        tenants |= set(Tenant.objects.values_list("slug", flat=True))
        schema = _schema_of(name, document)
        refuse(schedule_problems(row, schema=schema, tenants=tenants), where)

    def save(self, row: JobSchedule, existing: JobSchedule | None, columns: list[str]) -> None:
        name = row.__dict__[_TYPE]
        type_id = JobType.objects.filter(name=name).values_list("pk", flat=True).first()
        if type_id is None:
            raise EntryError(f'{self.noun} "{row.name}": the type {name!r} has gone meanwhile')
        row.type_id = type_id
        if existing is None:
            row.save()
        else:
            row.save(update_fields=[*columns, "type_id"])


# What a row is to have that is written elsewhere, or only known by name as yet.
_STEPS, _TYPE = "_configured_steps", "_configured_type"


def _steps_of(row: JobType) -> list[tuple[TypeStep, str]]:
    found: list[tuple[TypeStep, str]] = row.__dict__.get(_STEPS, [])
    return found


def _keep_steps(row: JobType, steps: list[tuple[TypeStep, str]]) -> None:
    row.__dict__[_STEPS] = steps


def _known(model: type[DownstreamService | JobType], document: Document, section: str) -> set[str]:
    names = set(model._default_manager.values_list("name", flat=True))
    return names | names_in(document, section)


def _schema_of(type_name: str, document: Document) -> Any:
    """The payload schema that the type will have; None where it cannot be told."""
    column = Column(name="payload_schema", kind=dict, json=True)
    for entry in document.get(TYPES, ()):
        if isinstance(entry, dict) and entry.get("name") == type_name and column.given(entry):
            try:
                return column.held(entry, where=type_name)
            except EntryError:
                return None  # said where the type is planned
    row = JobType.objects.filter(name=type_name).first()
    return row.payload_schema if row is not None else None


def _stored_secret(value: str, stored: str, option: str) -> str:
    """The secret as it is kept: the same again is no change, though it would be another token."""
    if is_reference(value):
        return value
    try:
        if stored and not is_reference(stored) and decrypt(stored, option=option) == value:
            return stored
    except SecretError:
        pass  # it cannot be read any more, so what the file gives is another
    return encrypt(value)


def sections() -> list[RowSection[Any]]:
    return [
        DownstreamSection(DownstreamService),
        TypeSection(JobType),
        ScheduleSection(JobSchedule),
    ]


def register() -> None:
    for section in sections():
        register_section(section)
