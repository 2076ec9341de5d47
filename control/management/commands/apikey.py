"""`manage.py apikey create|list|revoke`: API keys from a shell, on the command's main thread."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from control.auth.keys import create_key
from control.auth.models import ACKS, DEFAULT_TENANT, SCOPES, ApiKey, Tenant, slug_validator


class Command(BaseCommand):
    help = "Create, list and revoke API keys. A new key's token is printed once and never again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="create a key and print its token")
        create.add_argument("name", help="what the key is for")
        create.add_argument("--tenant", default=DEFAULT_TENANT, help="made if it does not exist")
        create.add_argument(
            "--scope",
            action="append",
            choices=sorted(SCOPES),
            help="what the key may do; may be repeated (default: logs, health, events, counters)",
        )
        create.add_argument("--any-tenant", action="store_true", help="may write for any tenant")
        create.add_argument("--min-ack", choices=ACKS, default="", help="weakest acknowledgement")
        create.add_argument(
            "--rate", type=int, metavar="R", help="records a second, over all processes (no limit)"
        )
        create.add_argument(
            "--burst", type=int, metavar="N", help="records at once (ten seconds' worth)"
        )
        create.add_argument("--expires-days", type=float, metavar="N", help="valid for N days")
        revoke = actions.add_parser("revoke", help="stop accepting a key, within two seconds")
        revoke.add_argument("prefix", help="the visible part of the token, as `list` shows it")
        shown = actions.add_parser("list", help="list the keys, without their secrets")
        for action in (create, revoke, shown):
            action.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *, action: str, **options: Any) -> None:
        getattr(self, action)(**options)

    def create(self, **options: Any) -> None:
        days = options["expires_days"]
        try:
            slug_validator(options["tenant"])
            tenant, _ = Tenant.objects.get_or_create(slug=options["tenant"])
            key, token = create_key(
                tenant=tenant,
                name=options["name"],
                scopes=options["scope"] or ["logs", "health", "events", "counters"],
                any_tenant=options["any_tenant"],
                min_ack=options["min_ack"],
                rate_per_s=options["rate"],
                burst=options["burst"],
                expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
            )
        except (ValidationError, OverflowError) as error:
            reasons = error.messages if isinstance(error, ValidationError) else [str(error)]
            raise CommandError(" ".join(reasons)) from None
        if options["json"]:
            self.stdout.write(json.dumps({**_as_json(key), "token": token}))
            return
        self.stderr.write(f"Created {key} for tenant {tenant}. The token is not shown again:")
        self.stdout.write(token)

    def list(self, **options: Any) -> None:
        keys = ApiKey.objects.select_related("tenant")
        if options["json"]:
            self.stdout.write(json.dumps([_as_json(key) for key in keys]))
            return
        now = datetime.now(UTC)
        for key in keys:
            state = "valid" if key.is_valid(now) else "revoked" if key.revoked_at else "expired"
            scopes = ",".join(key.scopes)
            self.stdout.write(f"{key.prefix}  {state:7}  {key.tenant}  {scopes}  {key.name!r}")

    def revoke(self, **options: Any) -> None:
        found = list(ApiKey.objects.filter(prefix=options["prefix"]))
        if len(found) != 1:
            raise CommandError(
                f"{len(found)} keys have the prefix {options['prefix']!r}; see `apikey list`."
            )
        key = found[0]
        if key.revoked_at is None:
            key.revoked_at = datetime.now(UTC)
            key.save(update_fields=["revoked_at"])
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(key)))
            return
        self.stdout.write(f"Revoked {key}.")


def _as_json(key: ApiKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant.slug,
        "scopes": key.scopes,
        "any_tenant": key.any_tenant,
        "min_ack": key.min_ack,
        "rate_per_s": key.rate_per_s,
        "burst": key.burst,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "last_used_at": key.last_used_at.isoformat() if key.last_used_at else None,
    }
