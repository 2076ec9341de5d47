"""Secrets of sinks: encrypted at rest, references to the environment, and their absence in texts.

A secret option is either a reference, `env:NAME`, which is no secret and is kept and exported as
it is, or a value, which is encrypted with a key derived from SECRET_KEY and never shown again.
Nothing here keeps a value; the derived key is made anew for each call's SECRET_KEY and cached.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
HIDDEN = "********"
_SHORTEST_REDACTED = 3  # replacing every "a" of a text hides nothing and destroys the text


class SecretError(Exception):
    """A secret cannot be had; the text names the option and what to do, never the value."""


def is_reference(text: str) -> bool:
    """Whether the text is `env:NAME`."""
    return REFERENCE.fullmatch(text) is not None


def encrypt(value: str) -> str:
    """The value as it may be stored."""
    return _fernet(settings.SECRET_KEY).encrypt(value.encode()).decode("ascii")


def decrypt(token: str, *, option: str) -> str:
    """The inverse of `encrypt`; raises SecretError when SECRET_KEY is another one."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    for key in keys:
        try:
            return _fernet(key).decrypt(token.encode("ascii")).decode()
        except (InvalidToken, ValueError):
            continue
    raise SecretError(
        f"{option}: the stored secret cannot be decrypted, SECRET_KEY has changed since; "
        "enter the value again, or restore the key"
    )


def resolve(text: str, *, option: str, environ: Mapping[str, str] | None = None) -> str:
    """The value that `env:NAME` stands for, or the text itself.

    The one place outside the settings that reads the environment: the operator named the variable.
    """
    match = REFERENCE.fullmatch(text)
    if match is None:
        return text
    value = (os.environ if environ is None else environ).get(match[1])
    if value is None:
        raise SecretError(
            f"{option}: environment variable {match[1]} is not set in this process; "
            "set it and restart, or enter the value itself"
        )
    return value


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret in it replaced."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST_REDACTED:
            text = text.replace(secret, HIDDEN)
    return text


@lru_cache(maxsize=8)
def _fernet(secret_key: str | bytes) -> Fernet:
    material = secret_key.encode() if isinstance(secret_key, str) else secret_key
    derived = HKDF(
        algorithm=hashes.SHA256(), length=32, salt=None, info=b"collector.sinks.secrets.v1"
    ).derive(material)
    return Fernet(base64.urlsafe_b64encode(derived))
