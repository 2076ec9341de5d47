"""Tenants and API keys as rows. A key's secret is never stored: only its SHA-256."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models

DEFAULT_TENANT = "default"
SCOPES: dict[str, str] = {
    "logs": "send logs",
    "health": "send health pings",
    "events": "send audit events",
    "counters": "count",
    "read": "read records and figures",
    "targets": "change targets and incidents",
    "jobs": "submit, cancel and retry jobs",
    "admin": "everything",
}
# The greatest that the database's integer holds.
MAX_RATE = 2**31 - 1
ACKS: tuple[str, ...] = ("memory", "wal", "stored")

slug_validator = RegexValidator(
    r"^[a-z0-9\-_.]{1,63}\Z",
    "Use 1 to 63 lower-case letters, digits, '-', '_' or '.'.",
    code="tenant_slug",
)


def _default_scopes() -> list[str]:
    return ["logs", "health", "events", "counters"]


def validate_scopes(scopes: object) -> None:
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise ValidationError("Scopes are a list of names.", code="scopes")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise ValidationError(
            f"Unknown scopes: {', '.join(unknown)}. Known: {', '.join(SCOPES)}.", code="scopes"
        )


def validate_limit(rate_per_s: int | None, burst: int | None) -> None:
    """A key's limit: records a second, and at once."""
    for name, value in (("rate limit", rate_per_s), ("burst", burst)):
        if value is not None and not 1 <= value <= MAX_RATE:
            raise ValidationError(
                f"A key's {name} is between 1 and {MAX_RATE:,} records.", code="limit"
            )
    if burst is not None and rate_per_s is None:
        raise ValidationError("A burst goes with a rate limit: set both.", code="burst")


class Tenant(models.Model):
    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["slug"]

    def __str__(self) -> str:
        return self.slug


class ApiKey(models.Model):
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=200)
    prefix = models.CharField(max_length=16, editable=False, help_text="The token's visible part.")
    digest = models.CharField(
        max_length=64, unique=True, editable=False, help_text="SHA-256 of the token."
    )
    scopes = models.JSONField(default=_default_scopes, validators=[validate_scopes])
    any_tenant = models.BooleanField(
        default=False, help_text="May write records for tenants other than its own."
    )
    min_ack = models.CharField(
        max_length=8,
        blank=True,
        default="",
        choices=[("", "no minimum"), *((ack, ack) for ack in ACKS)],
        help_text="The weakest acknowledgement this key's requests may ask for.",
    )
    rate_per_s = models.PositiveIntegerField(
        "rate limit",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Records a second, over all processes together. Empty: no limit.",
    )
    burst = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Records at once, after a while without any; a larger request is taken whole, "
        "and waited for afterwards. Empty: ten seconds' worth.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at", "-id"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} (ck_{self.prefix}_…)"

    def is_valid(self, now: datetime) -> bool:
        if self.revoked_at is not None:
            return False
        return self.expires_at is None or self.expires_at > now
