"""What is wrong with a schedule as somebody entered it, by field.

For forms, configuration as code and checks; changes no row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from django.conf import settings

from control.auth.models import Tenant
from jobs.payloads import SchemaError, payload_errors
from jobs.schedules import cron
from jobs.types.models import JobSchedule

Problems = dict[str, str]


def schedule_problems(
    row: JobSchedule, *, schema: Any = None, tenants: Collection[str] | None = None
) -> Problems:
    """`schema` is that of its type, None where it is not known; `tenants` those that there are."""
    found = cron.problems(row.cron, row.timezone)
    problem = _payload_problem(row.payload, schema)
    if problem:
        found["payload"] = problem
    if tenants is None:
        tenants = set(Tenant.objects.filter(slug=row.tenant).values_list("slug", flat=True))
    if row.tenant not in tenants:
        found["tenant"] = f"there is no tenant {row.tenant!r}"[:200]
    return found


def _payload_problem(payload: Any, schema: Any) -> str:
    try:
        text = json.dumps(payload, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return "is not JSON, or nested too deeply"
    most = settings.COLLECTOR.jobs.max_payload_bytes
    if len(text) > most:
        return f"is larger than {most} bytes"
    if "\\u0000" in text:
        return "has a NUL character in it, which no database keeps"
    # The 0 is nobody's: the schema is not that of a stored type.
    return payload_problem(0, schema, payload) if isinstance(schema, Mapping) else ""


def payload_problem(type_id: int, schema: Mapping[str, Any], payload: Any) -> str:
    """The first that is wrong with a payload by the schema of a type; "" when nothing is."""
    try:
        errors = payload_errors(type_id, schema, payload)
    except SchemaError as error:
        return f"the schema of its type cannot be used: {error}"
    return f"{errors[0].pointer or 'the payload'} {errors[0].detail}" if errors else ""
