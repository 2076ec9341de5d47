"""What is wrong with a type, its steps or a downstream service as somebody entered it, by field.

Beyond what the fields themselves refuse: rules across fields, JSON that means something, code that
must be there.  For forms, configuration as code and checks; reads no row and changes none.  A
handler that is allowed is imported to see that it is there.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from control.outbound.urls import url_problem
from jobs.downstream.addresses import base_url_problem, headers_problem
from jobs.downstream.statuses import expected
from jobs.execution.handlers import Handlers
from jobs.execution.templatechecks import template_problems
from jobs.payloads import schema_problem
from jobs.types.models import CALL, HANDLER, QUORUM, DownstreamService, JobType, TypeStep
from jobs.webhooks.policy import policy
from sinks.secrets import SecretError, resolve

MAX_STEPS = 50
Problems = dict[str, str]


def downstream_problems(row: DownstreamService) -> Problems:
    """By field.  Secret headers are judged by their names; their values are not looked at."""
    found: Problems = {}
    if problem := base_url_problem(row.base_url):
        found["base_url"] = f"The base URL {problem}."
    if problem := _mapping_problem(row.headers) or headers_problem(row.headers):
        found["headers"] = f"{problem}."
    secret = row.secret_headers
    problem = _mapping_problem(secret) or headers_problem(dict.fromkeys(secret, ""))
    if problem:
        found["secret_headers"] = f"{problem}."
    elif both := {one.lower() for one in row.headers} & {one.lower() for one in secret}:
        found["secret_headers"] = f"{', '.join(sorted(both))} is among the other headers, too."
    if problem := _status_problem(row.expected_status):
        found["expected_status"] = problem
    if row.burst is not None and row.rate_per_s is None:
        found["burst"] = "A burst needs a rate."
    return found


def downstream_doubts(row: DownstreamService) -> list[str]:
    """Why calls of the service may not succeed, though it can be saved as it is.

    The variables of this process are looked at: those of the runners may be others.
    """
    found = []
    for name, kept in sorted((row.secret_headers or {}).items()):
        try:
            resolve(str(kept), option=name)
        except SecretError as error:
            found.append(f"{error}. Runners that lack it, too, call nothing: jobs wait")
    host = urlsplit(row.base_url).hostname or ""
    try:
        ipaddress.ip_address(host)
        if problem := policy().trusting().problem(host):
            found.append(f"{problem}: its calls are refused, and jobs that need it die")
    except ValueError:  # a name; where it leads is judged at each call
        pass
    return found


def type_problems(row: JobType, steps: Sequence[TypeStep] | None) -> Problems:
    """By field of the type; "" stands for its steps together, which None leaves unjudged."""
    found: Problems = {}
    if row.payload_schema and (problem := schema_problem(row.payload_schema)):
        found["payload_schema"] = f"{problem}."
    if row.aggregation == QUORUM and row.quorum is None:
        found["quorum"] = "Say how many steps must succeed."
    if row.backoff_cap_s < row.backoff_base_s:
        found["backoff_cap_s"] = "The longest wait is shorter than the first."
    if row.burst is not None and row.rate_per_s is None:
        found["burst"] = "A burst needs a rate."
    if row.webhook_url and (problem := url_problem(row.webhook_url)):
        found["webhook_url"] = f"The URL {problem}."
    if steps is not None and (problem := _steps_problem(row, steps)):
        found[""] = problem
    return found


def _steps_problem(row: JobType, steps: Sequence[TypeStep]) -> str:
    if len(steps) > MAX_STEPS:
        return f"A type has at most {MAX_STEPS} steps."
    often = [name for name, count in Counter(step.name for step in steps).items() if count > 1]
    if often:
        return f"Two steps are named {often[0]}."
    if row.aggregation == QUORUM and row.quorum is not None and row.quorum > len(steps):
        there = "There is no step" if not steps else f"Of {len(steps)} steps"
        return f"{there}, {row.quorum} cannot succeed: lower the quorum, or add steps."
    return ""


def step_problems(step: TypeStep, steps: Iterable[TypeStep], schema: Any) -> Problems:
    """By field of the step, among all the steps of its type, whose payload schema is `schema`."""
    if step.kind == HANDLER:
        return _handler_problems(step)
    found: Problems = {}
    if step.kind == CALL and step.downstream_id is None:
        found["downstream"] = "Choose the downstream service that is called."
    if step.expected_status and (problem := _status_problem(step.expected_status)):
        found["expected_status"] = problem
    if problem := _mapping_problem(step.headers) or headers_problem(step.headers):
        found["headers"] = f"{problem}."
        return found
    usable = schema if isinstance(schema, dict) and not schema_problem(schema or {}) else None
    for wrong in template_problems(
        path=step.path,
        headers=step.headers,
        body=step.body,
        earlier=[one.name for one in steps if one.stage < step.stage],
        schema=usable or None,
        method=step.method,
    ):
        found.setdefault(wrong.field, f"It {wrong.text}."[:500])
    return found


def _handler_problems(step: TypeStep) -> Problems:
    if not step.handler:
        return {"handler": "Name the function, such as jobs.examples.ekyc.document."}
    handlers = Handlers(patterns=settings.COLLECTOR.jobs.handlers)
    problem = handlers.problem(step.handler)
    return {"handler": f"{problem}."} if problem else {}


def _mapping_problem(value: Any) -> str:
    if not isinstance(value, dict):
        return 'Write a JSON object of texts, such as {"Accept": "application/json"}'
    return ""


def _status_problem(text: str) -> str:
    try:
        expected(text)
    except ValueError as error:
        return f"{error}."
    return ""
