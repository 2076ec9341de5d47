"""API keys: made here, shown once, and checked from memory.

`KeyRing` maps the SHA-256 of each token to who it speaks for. Request threads only read the
current map, which is replaced whole, so they take no lock. `_lock` guards refreshing; the
database is read outside of requests by the heart's watcher, except for the first use in a
process and after a change in it. A token is 256 random bits, so a plain digest suffices at
rest: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from django.core.exceptions import ValidationError
from django.db import Error as DatabaseProblem

from control.auth.models import ACKS, SCOPES, ApiKey, Tenant, validate_limit, validate_scopes

logger = logging.getLogger(__name__)

ALL_SCOPES = frozenset(SCOPES)
MAX_TOKEN_LENGTH = 256
_PREFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request speaks for."""

    key_id: int | None
    tenant: str
    scopes: frozenset[str]
    any_tenant: bool = False
    min_ack: str = ""
    rate_per_s: int | None = None
    burst: int | None = None


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """What of a key is kept in memory and in the snapshot: never the token."""

    id: int
    digest: str
    tenant: str
    scopes: list[str]
    any_tenant: bool
    min_ack: str
    expires_at: float | None
    revoked: bool
    # Records; a snapshot of an earlier version has none.
    rate_per_s: int | None = None
    burst: int | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    principal: Principal
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Keys:
    by_digest: dict[bytes, _Entry] = field(default_factory=dict)
    rows: int = 0
    known: bool = False


class Snapshot:
    """Where the last good rows are kept for a start without a database."""

    absent = False
    """Whether `load` found none, as at the very first start, rather than a damaged one."""

    def load(self) -> list[KeyRow] | None:
        return None

    def save(self, rows: list[KeyRow]) -> None:
        """Keep `rows`; a failure is the snapshot's own to report."""


class KeyRing:
    def __init__(
        self,
        *,
        rows: Callable[[], list[KeyRow]] | None = None,
        snapshot: Snapshot | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rows = rows or load_rows
        self._snapshot = snapshot or Snapshot()
        self._now = now
        self._lock = threading.Lock()
        self._keys = _Keys()
        self._fingerprint = b""
        self._stale = True
        self._stale_for = 0  # the thread that changed keys; 0: whoever comes next
        self._first_start = False
        self._used: dict[int, float] = {}

    @property
    def first_start(self) -> bool:
        """Whether no keys were ever read here: no database has answered, and no snapshot is left.

        A damaged snapshot is one of keys that exist.
        """
        return self._first_start and not self._current().known

    @property
    def empty(self) -> bool:
        """Whether it is known that no key was ever made. A revoked key still counts as one."""
        keys = self._current()
        return keys.known and keys.rows == 0

    @property
    def known(self) -> bool:
        """Whether the keys were ever read, from the database or from the snapshot."""
        return self._current().known

    @property
    def loaded(self) -> bool:
        """`known` as it is now, for who may not wait for a database."""
        return self._keys.known

    def authenticate(self, token: str) -> Principal | None:
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        keys = self._current()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        entry = keys.by_digest.get(digest)
        if entry is None:
            return None
        now = self._now()
        if now >= entry.expires_at:
            return None
        key_id = entry.principal.key_id
        if key_id is not None:
            self._used[key_id] = now
        return entry.principal

    def refresh(self) -> None:
        """Read the keys again. Raises `django.db.Error`, and keeps what it had, when that fails."""
        with self._lock:
            self._load()

    def invalidate(self) -> None:
        """Have the calling thread read the keys again before it next uses them.

        It changed them, perhaps in a transaction that no other thread sees into; the others go
        on with what they have until the change is committed and `refresh` was called.
        """
        self._stale_for = threading.get_ident()
        self._stale = True

    def take_used(self) -> dict[int, float]:
        """When each key was last used since the last call; clears the note."""
        # Taken out one by one: a request that got hold of the dictionary writes into it still.
        return {key_id: self._used.pop(key_id) for key_id in list(self._used)}

    def put_back_used(self, used: dict[int, float]) -> None:
        """Return what could not be written; a later use wins."""
        for key_id, at in used.items():
            self._used.setdefault(key_id, at)

    def _current(self) -> _Keys:
        # While the first read is under way, others wait for it rather than find no keys.
        if self._stale or not self._keys.known:
            if self._keys.known and self._stale_for not in (0, threading.get_ident()):
                return self._keys
            with self._lock:
                if self._stale:
                    self._load_or_fall_back()
        return self._keys

    def _load_or_fall_back(self) -> None:
        try:
            self._load()
        except DatabaseProblem as error:
            # Later reads come from the heart's watcher; a request does not wait for a database.
            self._stale = False
            if self._keys.known:
                return
            rows = self._snapshot.load()
            self._first_start = rows is None and self._snapshot.absent
            if rows is not None:
                self._keys = _build(rows)
            logger.warning(
                "API keys could not be read from the database",
                extra={"error": type(error).__name__, "from_snapshot": rows is not None},
            )

    def _load(self) -> None:
        # Cleared first: a change that arrives while the rows are being read asks for another
        # read.
        self._stale = False
        try:
            rows = self._rows()
        except BaseException:
            self._stale = True
            raise
        fingerprint = msgspec.msgpack.encode(rows)
        if fingerprint != self._fingerprint:
            self._keys = _build(rows)
            self._fingerprint = fingerprint
        # Compares by itself, and tries again what it could not write.
        self._snapshot.save(rows)


def load_rows() -> list[KeyRow]:
    """Every key of the installation, also revoked ones, ordered by id."""
    return [
        KeyRow(
            id=key_id,
            digest=digest,
            tenant=tenant,
            scopes=list(scopes),
            any_tenant=any_tenant,
            min_ack=min_ack,
            expires_at=expires_at.timestamp() if expires_at else None,
            revoked=revoked_at is not None,
            rate_per_s=rate_per_s,
            burst=burst,
        )
        for (
            key_id,
            digest,
            tenant,
            scopes,
            any_tenant,
            min_ack,
            expires_at,
            revoked_at,
            rate_per_s,
            burst,
        ) in ApiKey.objects.order_by("id").values_list(
            "id",
            "digest",
            "tenant__slug",
            "scopes",
            "any_tenant",
            "min_ack",
            "expires_at",
            "revoked_at",
            "rate_per_s",
            "burst",
        )
    ]


def _build(rows: list[KeyRow]) -> _Keys:
    by_digest = {
        bytes.fromhex(row.digest): _Entry(
            principal=Principal(
                key_id=row.id,
                tenant=row.tenant,
                scopes=ALL_SCOPES if "admin" in row.scopes else frozenset(row.scopes),
                any_tenant=row.any_tenant,
                min_ack=row.min_ack,
                rate_per_s=row.rate_per_s,
                burst=row.burst,
            ),
            expires_at=float("inf") if row.expires_at is None else row.expires_at,
        )
        for row in rows
        if not row.revoked
    }
    return _Keys(by_digest=by_digest, rows=len(rows), known=True)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def make_token() -> tuple[str, str]:
    """A new token and its visible prefix."""
    prefix = "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(8))
    return f"ck_{prefix}_{secrets.token_urlsafe(32)}", prefix


def create_key(
    *,
    tenant: Tenant | str,
    name: str,
    scopes: Iterable[str],
    any_tenant: bool = False,
    min_ack: str = "",
    expires_at: datetime | None = None,
    rate_per_s: int | None = None,
    burst: int | None = None,
    token: str | None = None,
) -> tuple[ApiKey, str]:
    """Make a key; the returned token is the only copy there will ever be.

    `rate_per_s` and `burst` are records, over all processes together; None is no limit.
    `token` is for a value that an operator brings along (the bootstrap key).
    """
    wanted = list(dict.fromkeys(scopes))
    validate_scopes(wanted)
    if min_ack and min_ack not in ACKS:
        raise ValidationError(f"Unknown acknowledgement {min_ack!r}. Known: {', '.join(ACKS)}.")
    validate_limit(rate_per_s, burst)
    if isinstance(tenant, str):
        tenant = Tenant.objects.get(slug=tenant)
    if token is None:
        token, prefix = make_token()
    else:
        prefix = digest_of(token)[:8]
    key = ApiKey.objects.create(
        tenant=tenant,
        name=name,
        prefix=prefix,
        digest=digest_of(token),
        scopes=wanted,
        any_tenant=any_tenant,
        min_ack=min_ack,
        expires_at=expires_at,
        rate_per_s=rate_per_s,
        burst=burst,
    )
    return key, token


_ring: KeyRing | None = None
_ring_lock = threading.Lock()


def keyring() -> KeyRing:
    """This process's key ring."""
    global _ring
    if _ring is None:
        with _ring_lock:
            if _ring is None:
                from control.auth.snapshot import FileSnapshot

                _ring = KeyRing(snapshot=FileSnapshot())
    return _ring
