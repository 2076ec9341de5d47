"""API keys: made once, checked from memory, expired, revoked, used, snapshotted, bootstrapped."""

from __future__ import annotations

import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import OperationalError, connection, transaction

from control.auth import usage, watching
from control.auth.bootstrap import bootstrap
from control.auth.keys import (
    ALL_SCOPES,
    KeyRing,
    KeyRow,
    create_key,
    digest_of,
    keyring,
    load_rows,
)
from control.auth.models import ApiKey, Tenant
from control.auth.service import KeyService
from control.auth.snapshot import FileSnapshot
from control.ports.readiness import readiness, unregister_readiness
from control.processes.heart import WATCH_INTERVAL_S, Heart
from pipeline.runtime.clock import FakeClock

NOW = 1_760_000_000.0


def a_row(token: str, **changes: object) -> KeyRow:
    values: dict[str, object] = {
        "id": 1,
        "digest": digest_of(token),
        "tenant": "acme",
        "scopes": ["logs"],
        "any_tenant": False,
        "min_ack": "",
        "expires_at": None,
        "revoked": False,
        **changes,
    }
    return KeyRow(**values)  # type: ignore[arg-type]


def a_ring(*rows: KeyRow, now: float = NOW) -> KeyRing:
    return KeyRing(rows=lambda: list(rows), now=lambda: now)


# --- the ring --------------------------------------------------------------------------------


def test_a_known_token_speaks_for_its_tenant() -> None:
    ring = a_ring(a_row("secret", any_tenant=True, min_ack="stored"))
    principal = ring.authenticate("secret")
    assert principal is not None
    assert (principal.key_id, principal.tenant) == (1, "acme")
    assert (principal.scopes, principal.any_tenant) == (frozenset({"logs"}), True)
    assert principal.min_ack == "stored"


@pytest.mark.parametrize("token", ["", "Secret", "secret ", "s" * 257, "\udcff", "\x00"])
def test_any_other_token_speaks_for_nobody(token: str) -> None:
    assert a_ring(a_row("secret"), a_row("s" * 257)).authenticate(token) is None


def test_admin_means_every_scope() -> None:
    principal = a_ring(a_row("secret", scopes=["admin"])).authenticate("secret")
    assert principal is not None
    assert principal.scopes == ALL_SCOPES


def test_a_key_ends_at_the_moment_it_expires() -> None:
    row = a_row("secret", expires_at=NOW)
    assert a_ring(row, now=NOW - 0.001).authenticate("secret") is not None
    assert a_ring(row, now=NOW).authenticate("secret") is None


def test_revoked_keys_open_nothing_and_still_count_as_keys() -> None:
    ring = a_ring(a_row("secret", revoked=True))
    assert ring.authenticate("secret") is None
    assert ring.empty is False
    assert a_ring().empty is True


def test_checking_reads_no_rows() -> None:
    reads = []

    def rows() -> list[KeyRow]:
        reads.append(1)
        return [a_row("secret")]

    ring = KeyRing(rows=rows)
    for _ in range(100):
        ring.authenticate("secret")
        ring.authenticate("wrong")
    assert len(reads) == 1


def test_a_failing_refresh_keeps_what_was_known() -> None:
    answers: list[list[KeyRow] | Exception] = [[a_row("secret")], OperationalError("away")]

    def rows() -> list[KeyRow]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    ring = KeyRing(rows=rows, now=lambda: NOW)
    assert ring.authenticate("secret") is not None
    with pytest.raises(OperationalError):
        ring.refresh()
    assert ring.authenticate("secret") is not None
    ring.invalidate()
    assert ring.authenticate("secret") is not None


def test_without_database_and_snapshot_nothing_is_known_and_nobody_waits() -> None:
    reads = []

    def rows() -> list[KeyRow]:
        reads.append(1)
        raise OperationalError("away")

    ring = KeyRing(rows=rows)
    assert ring.authenticate("secret") is None
    assert ring.known is False
    # Not known is not empty: an empty ring lets this machine in without a key.
    assert ring.empty is False
    assert len(reads) == 1


@pytest.mark.concurrency
def test_requests_during_the_first_read_wait_for_it() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow_rows() -> list[KeyRow]:
        reading.set()
        assert go_on.wait(180)
        return [a_row("secret")]

    ring = KeyRing(rows=slow_rows, now=lambda: NOW)
    found: list[bool] = []
    first = threading.Thread(target=lambda: found.append(ring.known))
    second = threading.Thread(target=lambda: found.append(ring.authenticate("secret") is not None))
    first.start()
    assert reading.wait(180)
    second.start()
    second.join(0.05)
    assert second.is_alive(), "answered before the keys were known"
    go_on.set()
    first.join(180)
    second.join(180)
    assert found == [True, True]


def test_a_change_during_a_refresh_is_not_lost() -> None:
    """Rows read before a change must not be taken for fresh after it."""
    rows = [a_row("old")]
    reading, go = threading.Event(), threading.Event()
    first = [True]

    def read() -> list[KeyRow]:
        found = list(rows)
        if first:
            first.clear()
            reading.set()
            go.wait(180)
        return found

    ring = KeyRing(rows=read, now=lambda: NOW)
    thread = threading.Thread(target=lambda: ring.authenticate("old"))
    thread.start()
    assert reading.wait(180)
    rows[:] = [a_row("new")]
    ring.invalidate()
    go.set()
    thread.join(180)
    assert ring.authenticate("new") is not None
    assert ring.authenticate("old") is None


# --- the snapshot ----------------------------------------------------------------------------


def test_keys_start_from_the_snapshot_without_a_database(tmp_path: Path) -> None:
    path = tmp_path / "data" / "snapshot" / "keys.json"
    KeyRing(rows=lambda: [a_row("secret")], snapshot=FileSnapshot(path=path)).refresh()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in path.read_text()
    assert list(path.parent.iterdir()) == [path]

    def away() -> list[KeyRow]:
        raise OperationalError("away")

    ring = KeyRing(rows=away, snapshot=FileSnapshot(path=path), now=lambda: NOW)
    assert ring.authenticate("secret") is not None
    assert ring.authenticate("wrong") is None
    assert ring.known


@pytest.mark.parametrize("damage", [b"", b"[{", b'[{"id": "x"}]', b"\xff"])
def test_a_damaged_snapshot_lets_nobody_in(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(damage)

    def away() -> list[KeyRow]:
        raise OperationalError("away")

    ring = KeyRing(rows=away, snapshot=FileSnapshot(path=path))
    assert ring.authenticate("secret") is None
    assert ring.known is False


def test_a_snapshot_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    snapshot = FileSnapshot(path=tmp_path / "file" / "keys.json")
    ring = KeyRing(rows=lambda: [a_row("secret")], snapshot=snapshot, now=lambda: NOW)
    assert ring.authenticate("secret") is not None
    assert "was not written" in caplog.text


# --- rows ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_made_key_works_at_once_and_its_token_is_nowhere_stored() -> None:
    key, token = create_key(tenant="default", name="app", scopes=["logs", "logs", "read"])
    assert token.startswith(f"ck_{key.prefix}_")
    assert key.scopes == ["logs", "read"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM control_apikey")
        assert token.rpartition("_")[2] not in str(cursor.fetchall())
    principal = keyring().authenticate(token)
    assert principal is not None
    assert principal.tenant == "default"


@pytest.mark.django_db
def test_no_two_tokens_are_alike() -> None:
    tokens = {create_key(tenant="default", name="n", scopes=["logs"])[1] for _ in range(20)}
    assert len(tokens) == 20
    assert min(len(token) for token in tokens) >= 50


@pytest.mark.django_db
@pytest.mark.parametrize(("scopes", "min_ack"), [(["root"], ""), (["logs"], "sometimes")])
def test_unknown_scopes_and_acks_are_refused(scopes: list[str], min_ack: str) -> None:
    with pytest.raises(ValidationError):
        create_key(tenant="default", name="x", scopes=scopes, min_ack=min_ack)


@pytest.mark.django_db
def test_a_change_in_this_process_counts_at_once() -> None:
    key, token = create_key(tenant="default", name="app", scopes=["logs"])
    assert keyring().authenticate(token) is not None
    key.revoked_at = datetime.now(UTC)
    key.save()
    assert keyring().authenticate(token) is None
    key.revoked_at = None
    key.save()
    assert keyring().authenticate(token) is not None
    key.delete()
    assert keyring().authenticate(token) is None


@pytest.mark.django_db
def test_a_renamed_tenant_is_what_its_keys_speak_for() -> None:
    tenant = Tenant.objects.create(slug="acme")
    _, token = create_key(tenant=tenant, name="app", scopes=["logs"])
    assert keyring().authenticate(token) is not None
    tenant.slug = "acme-2"
    tenant.save()
    principal = keyring().authenticate(token)
    assert principal is not None
    assert principal.tenant == "acme-2"


@pytest.mark.django_db(transaction=True)
def test_a_change_counts_only_once_committed() -> None:
    """Another thread that reads in between keeps the old keys, and is told after the commit."""
    key, token = create_key(tenant="default", name="app", scopes=["logs"])
    assert keyring().authenticate(token) is not None
    seen: list[bool] = []

    def look() -> None:
        seen.append(keyring().authenticate(token) is not None)
        connection.close()

    with transaction.atomic():
        key.revoked_at = datetime.now(UTC)
        key.save()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(180)
    assert seen == [True]
    assert keyring().authenticate(token) is None


@pytest.mark.django_db(transaction=True)
def test_what_was_seen_of_a_change_that_was_taken_back_does_not_stay() -> None:
    heart = Heart(clock=FakeClock())
    watching.register(heart)
    key, token = create_key(tenant="default", name="app", scopes=["logs"])
    heart.beat()
    with transaction.atomic():
        key.revoked_at = datetime.now(UTC)
        key.save()
        assert keyring().authenticate(token) is None
        transaction.set_rollback(True)
    heart.nudge()
    heart.beat()
    assert keyring().authenticate(token) is not None


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        {"revoked_at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"scopes": []},
        {"any_tenant": True},
        {"min_ack": "stored"},
    ],
)
def test_the_watcher_sees_what_another_process_changed(change: dict[str, object]) -> None:
    """A queryset update sends no signal, as another process sends none."""
    clock = FakeClock()
    heart = Heart(clock=clock)
    key, token = create_key(tenant="default", name="app", scopes=["logs"])
    watching.register(heart)
    heart.beat()
    before = keyring().authenticate(token)
    ApiKey.objects.filter(pk=key.pk).update(**change)
    assert keyring().authenticate(token) == before
    clock.advance(WATCH_INTERVAL_S)
    heart.beat()
    assert keyring().authenticate(token) != before


@pytest.mark.django_db
def test_last_use_is_written_in_bulk_and_kept_without_a_database(
    django_assert_num_queries: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [create_key(tenant="default", name=str(n), scopes=["logs"]) for n in range(5)]
    ring = KeyRing(now=lambda: NOW)
    for _, token in made[:4]:
        ring.authenticate(token)
        ring.authenticate(token)
    with monkeypatch.context() as patch:
        patch.setattr(
            "django.db.models.query.QuerySet.update",
            lambda *_, **__: (_ for _ in ()).throw(OperationalError("away")),
        )
        with pytest.raises(OperationalError):
            usage.write(ring)
    with django_assert_num_queries(1):  # type: ignore[operator]
        usage.write(ring)
    at = datetime.fromtimestamp(NOW, UTC)
    used = dict(ApiKey.objects.values_list("name", "last_used_at"))
    assert used == {"0": at, "1": at, "2": at, "3": at, "4": None}
    with django_assert_num_queries(0):  # type: ignore[operator]
        usage.write(ring)


@pytest.mark.django_db
def test_writing_the_last_use_is_no_change_of_keys() -> None:
    before = load_rows()
    create_key(tenant="default", name="n", scopes=["logs"])
    rows = load_rows()
    ApiKey.objects.update(last_used_at=datetime.now(UTC))
    assert load_rows() == rows != before


# --- the first key ---------------------------------------------------------------------------


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("COLLECTOR_BOOTSTRAP_API_KEY", raising=False)
    return monkeypatch


@pytest.mark.django_db
def test_the_first_key_comes_from_the_configured_value(variable: pytest.MonkeyPatch) -> None:
    token = "a" * 32
    assert bootstrap() is False
    variable.setenv("COLLECTOR_BOOTSTRAP_API_KEY", token)
    assert bootstrap() is True
    assert bootstrap() is False
    principal = keyring().authenticate(token)
    assert principal is not None
    assert principal.scopes == ALL_SCOPES
    assert ApiKey.objects.get().name == "bootstrap"
    assert token[:8] not in str(ApiKey.objects.get())


@pytest.mark.django_db
def test_where_keys_exist_none_is_created() -> None:
    create_key(tenant="default", name="app", scopes=["logs"])
    assert bootstrap("b" * 32) is False
    assert keyring().authenticate("b" * 32) is None


@pytest.mark.django_db
@pytest.mark.parametrize("token", ["short", "x" * 23, "x" * 201, "ü" * 30, "a b" * 20])
def test_a_poor_value_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        bootstrap(token)
    assert token not in str(refused.value)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("slug", "valid"),
    [
        ("default", True),
        ("a", True),
        ("a-b_c.9", True),
        ("x" * 63, True),
        ("x" * 64, False),
        ("", False),
        ("Acme", False),
        ("a/b", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_slugs(slug: str, valid: bool) -> None:
    tenant = Tenant(slug=slug, name="n")
    if valid:
        tenant.clean_fields()
    else:
        with pytest.raises(ValidationError):
            tenant.clean_fields()


def test_validity_of_a_row() -> None:
    now = datetime.now(UTC)
    assert ApiKey().is_valid(now)
    assert ApiKey(expires_at=now + timedelta(seconds=1)).is_valid(now)
    assert not ApiKey(expires_at=now).is_valid(now)
    assert not ApiKey(revoked_at=now).is_valid(now)


# --- before the server says that it is ready ---------------------------------------------------


def test_a_process_knows_the_keys_before_it_is_ready() -> None:
    away = True

    def rows() -> list[KeyRow]:
        if away:
            raise OperationalError("away")
        return [a_row("secret")]

    ring = KeyRing(rows=rows)
    service = KeyService(ring=ring)
    try:
        service.start("server")
        cause = readiness()["api_keys"]
        assert cause is not None
        assert "have not been read" in cause
        away = False
        assert readiness()["api_keys"] is not None, "the check itself waited for the database"
        ring.refresh()
        assert readiness()["api_keys"] is None
        ring = KeyRing(rows=rows)
        KeyService(ring=ring).start("server")
        assert ring.loaded
    finally:
        unregister_readiness("api_keys")


def test_a_command_reads_no_keys() -> None:
    ring = KeyRing(rows=lambda: pytest.fail("read"))
    KeyService(ring=ring).start("command")
    assert "api_keys" not in readiness()


def test_uses_noted_while_they_are_taken_are_not_lost() -> None:
    ring = a_ring(a_row("secret"))
    ring.authenticate("secret")
    held = ring._used
    ring.take_used()
    held[7] = NOW  # by a request that had got hold of the dictionary before
    assert ring.take_used() == {7: NOW}


def test_a_missing_snapshot_is_a_first_start_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    from control.auth.snapshot import FileSnapshot

    def away() -> list[KeyRow]:
        raise OperationalError("away")

    path = tmp_path / "api_keys.json"
    ring = KeyRing(rows=away, snapshot=FileSnapshot(path=path))
    assert not ring.known
    assert ring.first_start
    path.write_text("[{")
    damaged = KeyRing(rows=away, snapshot=FileSnapshot(path=path))
    assert not damaged.known
    assert not damaged.first_start


def test_a_change_is_read_by_the_thread_that_made_it_and_waits_for_nobody_else() -> None:
    reads: list[str] = []

    def rows() -> list[KeyRow]:
        reads.append(threading.current_thread().name)
        return []

    ring = KeyRing(rows=rows)
    assert ring.known
    ring.invalidate()
    other = threading.Thread(target=lambda: ring.known, name="ingest")
    other.start()
    other.join(180)
    assert "ingest" not in reads
    assert ring.known
    assert len(reads) == 2
