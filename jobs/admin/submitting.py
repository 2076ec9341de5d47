"""Submitting a job by hand, from its type's page: to try a type, or to do something once.

Runs in request threads.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from jobs.admin.jsonfields import JsonField
from jobs.bulk.selection import id_of
from jobs.payloads import SchemaError, payload_errors
from jobs.states import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.store.database import store
from jobs.store.models import Job
from jobs.store.protocol import Draft
from jobs.types.models import JobType

MOST_DEEP = 5
_SAMPLES: dict[str, Any] = {
    "integer": 1, "number": 1.5, "string": "text", "boolean": True, "array": [], "null": None,
}  # fmt: skip


class SubmitForm(forms.Form):
    correlation_id = forms.CharField(
        required=False,
        max_length=128,
        label="Correlation id",
        widget=forms.TextInput(attrs={"autocomplete": "off", "class": "vTextField"}),
    )
    service = forms.CharField(
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "class": "vTextField"}),
    )
    priority = forms.TypedChoiceField(
        coerce=int,
        choices=[(one, str(one)) for one in range(HIGHEST_PRIORITY, LOWEST_PRIORITY - 1, -1)],
    )

    def __init__(self, row: JobType, *args: Any, **kwargs: Any) -> None:
        self.row = row
        config = settings.COLLECTOR.jobs
        super().__init__(*args, **kwargs)
        self.fields["payload"] = JsonField(
            empty={}, rows=10, max_depth=config.max_depth, max_bytes=config.max_payload_bytes
        )
        self.order_fields(["payload", "correlation_id", "service", "priority"])

    def clean_payload(self) -> Any:
        payload = self.cleaned_data["payload"]
        try:
            wrong = payload_errors(self.row.pk, self.row.payload_schema or {}, payload)
        except SchemaError as error:
            raise forms.ValidationError(f"The schema of the type cannot be used: {error}") from None
        if wrong:
            raise forms.ValidationError(
                [f"{one.pointer or 'The payload'}: {one.detail}" for one in wrong]
            )
        return payload


def sample(schema: Any, depth: int = 0) -> Any:
    """A payload to begin with, after the schema's required properties."""
    if not isinstance(schema, dict) or depth > MOST_DEEP:
        return {}
    for word in ("examples", "enum"):
        if isinstance(schema.get(word), list) and schema[word]:
            return schema[word][0]
    for word in ("default", "const"):
        if word in schema:
            return schema[word]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if isinstance(kind, str) and kind in _SAMPLES:
        return _SAMPLES[kind]
    fields, required = schema.get("properties"), schema.get("required")
    if not isinstance(fields, dict) or not isinstance(required, list):
        return {}
    return {
        name: sample(fields.get(name), depth + 1) for name in required[:50] if isinstance(name, str)
    }


def _like(request: HttpRequest, row: JobType) -> dict[str, Any]:
    """What is taken over from the job that the address names."""
    key = id_of(request.GET.get("like", ""))
    if key is None or not request.user.has_perm("jobs.view_job"):
        return {}
    job = Job.objects.filter(pk=key, type_id=row.pk).first()
    if job is None:
        return {}
    return {
        "payload": job.payload,
        "priority": job.priority,
        "correlation_id": job.correlation_id,
        "service": job.service,
    }


def page(model_admin: Any, request: HttpRequest, row: JobType) -> HttpResponse:
    if not request.user.has_perm("jobs.add_job"):
        raise PermissionDenied
    initial = {
        "payload": sample(row.payload_schema),
        "priority": row.default_priority,
        **_like(request, row),
    }
    form = SubmitForm(row, request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        if row.enabled:
            return _submitted(request, row, form.cleaned_data)
        form.add_error(None, f"{row.name} is disabled: it takes no jobs.")
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": f"Submit a job of {row.name}",
        "type_row": row,
        "form": form,
    }
    return TemplateResponse(request, "admin/jobs/jobtype/submit.html", context)


def _submitted(request: HttpRequest, row: JobType, data: dict[str, Any]) -> HttpResponse:
    draft = Draft(
        type_id=row.pk,
        payload=data["payload"],
        priority=data["priority"],
        deadline_s=row.deadline_s,
        correlation_id=data["correlation_id"],
        service=data["service"],
        submitted_by=request.user.get_username(),
    )
    store().submit([draft])
    messages.success(request, "The job is queued.")
    return HttpResponseRedirect(reverse("admin:jobs_job_change", args=[draft.id]))
