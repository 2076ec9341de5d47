"""The first API key, from a value that the operator configured before the first start."""

from __future__ import annotations

import logging
import os

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, router, transaction

from control.auth.keys import create_key
from control.auth.models import DEFAULT_TENANT, SCOPES, ApiKey, Tenant

logger = logging.getLogger(__name__)

VARIABLE = "COLLECTOR_BOOTSTRAP_API_KEY"
MIN_LENGTH = 24


def bootstrap(token: str | None = None) -> bool:
    """Create the first key from `token` where no key exists; True when it was created."""
    if token is None:
        # Read here, once, by the set-up: a secret does not stay in the settings of a server.
        token = os.environ.get(VARIABLE, "")
    token = token.strip()
    if not token:
        return False
    if len(token) < MIN_LENGTH or len(token) > 200 or not token.isascii() or " " in token:
        raise ImproperlyConfigured(
            f"{VARIABLE} must be {MIN_LENGTH} to 200 visible ASCII characters, hard to guess: "
            "for example the output of `openssl rand -hex 32`."
        )
    alias = router.db_for_write(ApiKey)
    try:
        with transaction.atomic(using=alias):
            if ApiKey.objects.using(alias).exists():
                return False
            tenant, _ = Tenant.objects.using(alias).get_or_create(
                slug=DEFAULT_TENANT, defaults={"name": "Default"}
            )
            create_key(
                tenant=tenant, name="bootstrap", scopes=list(SCOPES), any_tenant=True, token=token
            )
    except IntegrityError:
        # Another process created it from the same value in the same moment.
        return False
    logger.info("the first API key was created from %s", VARIABLE)
    return True
