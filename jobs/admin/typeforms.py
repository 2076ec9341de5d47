"""The form of a job type and of its steps: JSON that is checked, code that is there.

Runs in request threads.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.forms.models import BaseInlineFormSet

from jobs.admin.jsonfields import JsonField
from jobs.admin.secretfields import NewSecretField, shown, stored
from jobs.types.models import CALL, HANDLER, QUORUM, JobType, TypeStep
from jobs.types.problems import step_problems, type_problems

BODY_BYTES = 64_000


class JobTypeForm(forms.ModelForm):  # type: ignore[type-arg]
    payload_schema = JsonField(
        empty={},
        kind=dict,
        rows=8,
        max_bytes=64_000,
        help_text="JSON Schema (draft 2020-12) that payloads must meet; empty: any JSON. "
        'For example {"type": "object", "required": ["user_id"], '
        '"properties": {"user_id": {"type": "integer"}}}.',
    )
    new_webhook_secret = NewSecretField(
        label="Webhook secret",
        help_text="Signs the webhook (X-Collector-Signature). A value env:NAME is read from the "
        "environment; any other is kept encrypted and not shown again. Left empty, it stays.",
    )
    clear_webhook_secret = forms.BooleanField(required=False, label="Remove the webhook secret")

    class Meta:
        model = JobType
        exclude: ClassVar[list[str]] = ["webhook_secret"]
        labels: ClassVar[dict[str, str]] = {
            "aggregation": "It succeeds when",
            "max_attempts": "Attempts at most",
            "default_priority": "Priority",
            "backoff_base_s": "First wait (s)",
            "backoff_cap_s": "Longest wait (s)",
            "deadline_s": "Deadline (s)",
            "max_concurrent": "Jobs at once",
            "rate_per_s": "Jobs a second",
            "keep_succeeded_days": "Succeeded",
            "keep_dead_days": "Dead",
            "keep_cancelled_days": "Cancelled, discarded",
            "job_webhooks": "Jobs may name their own",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "max_attempts": "Delays by an open breaker cost none.",
            "default_priority": "0 to 9; 9 is taken first.",
            "backoff_cap_s": "Waits double from the first on, each of a random length; a "
            "Retry-After of what was called wins.",
        }
        widgets: ClassVar[dict[str, Any]] = {
            "description": forms.Textarea(attrs={"rows": 2, "class": "vLargeTextField"})
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kept = self.instance.webhook_secret
        if kept:
            field = self.fields["new_webhook_secret"]
            field.help_text = f"{shown('A secret', kept)}. {field.help_text}"
        elif "clear_webhook_secret" in self.fields:
            del self.fields["clear_webhook_secret"]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("new_webhook_secret") and data.get("clear_webhook_secret"):
            self.add_error("clear_webhook_secret", "Remove it or set another, not both.")
        if data.get("aggregation") != QUORUM:
            data["quorum"] = None
        return data

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if new := self.cleaned_data.get("new_webhook_secret"):
            self.instance.webhook_secret = stored(new)
        elif self.cleaned_data.get("clear_webhook_secret"):
            self.instance.webhook_secret = ""
        if self.errors:
            return
        for name, text in type_problems(self.instance, None).items():
            self.add_error(name if name in self.fields else None, text)


class StepForm(forms.ModelForm):  # type: ignore[type-arg]
    headers = JsonField(
        empty={},
        kind=dict,
        rows=2,
        max_bytes=16_000,
        help_text='A JSON object of texts, such as {"X-User": "{payload.user_id}"}.',
    )
    body = JsonField(
        rows=3,
        max_bytes=BODY_BYTES,
        help_text='JSON with references in quotes, such as {"user": "{payload.user_id}"} or '
        '"{steps.document.result.kind}"; empty: the payload itself.',
    )

    class Meta:
        model = TypeStep
        fields: ClassVar[list[str]] = [
            "name", "stage", "kind", "downstream", "method", "path", "headers", "body",
            "expected_status", "timeout_s", "handler",
        ]  # fmt: skip
        labels: ClassVar[dict[str, str]] = {
            "downstream": "Service",
            "timeout_s": "Timeout (s)",
            "handler": "Function",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "stage": "Steps of one stage run at the same time.",
            "expected_status": "Empty: the service's.",
            "timeout_s": "Empty: the service's.",
            "handler": "Dotted path of a function that COLLECTOR_JOBS_HANDLERS allows.",
        }

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        # What belongs to the other kind would lie in wait for nobody.
        if data.get("kind") == HANDLER:
            data.update(downstream=None, path="", headers={}, body=None, expected_status="")
        elif data.get("kind") == CALL:
            data["handler"] = ""
        return data


class StepFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    def clean(self) -> None:
        """Judge the steps together, once each is well-formed."""
        super().clean()
        if any(self.errors):
            return
        kept = [
            form
            for form in self.forms
            if form not in self.deleted_forms and (form.has_changed() or form.instance.pk)
        ]
        steps = [form.instance for form in kept]
        for form in kept:
            found = step_problems(form.instance, steps, self.instance.payload_schema)
            for name, text in found.items():
                form.add_error(name if name in form.fields else None, text)
        if problem := type_problems(self.instance, steps).get(""):
            raise ValidationError(problem)
