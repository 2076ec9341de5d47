"""What a ping is answered; the engine is replaced by one that notes what it is offered."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models import QuerySet
from django.test import Client

from healthmon.heartbeats.index import (
    AWAY_S,
    LOOKS_BURST,
    LOOKS_PER_S,
    HeartbeatIndex,
    IndexUnknown,
    index,
)
from healthmon.heartbeats.pings import MAX_BODY_BYTES, SentPing, ping_of
from healthmon.heartbeats.secret import digest_of, new_ping_secret
from healthmon.targets.models import Target
from pipeline.errors import LogUnavailable, Saturated
from pipeline.runtime.clock import FakeClock
from sinks import service

pytestmark = pytest.mark.django_db


class Engine:
    def __init__(self) -> None:
        self.offers: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def offer(self, **offer: Any) -> None:
        if self.error is not None:
            raise self.error
        self.offers.append(offer)

    @property
    def last(self) -> SentPing:
        return ping_of(self.offers[-1]["records"][0].payload)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(service.SinkService, "engine", made)
    return made


@pytest.fixture
def secret(make_target: Callable[..., Target]) -> str:
    return new_ping_secret(make_target())


@pytest.mark.parametrize("method", ["get", "head", "post"])
def test_a_ping_is_in_the_log_before_it_is_answered(
    client: Client, engine: Engine, secret: str, method: str
) -> None:
    answer = getattr(client, method)(f"/ping/{secret}")
    assert answer.status_code == 200
    assert answer.content == (b"" if method == "head" else b"OK")
    (offer,) = engine.offers
    assert (offer["type"], offer["tenant"], offer["durable"]) == ("ping", "default", True)
    assert engine.last.target_id == Target.objects.get().pk
    assert (engine.last.kind, engine.last.exit_code) == ("success", None)
    assert engine.last.remote == "127.0.0.1"
    assert secret not in repr(engine.offers)


@pytest.mark.parametrize(
    ("action", "kind", "code"),
    [
        ("start", "start", None),
        ("fail", "fail", None),
        ("0", "success", 0),
        ("3", "fail", 3),
        ("255", "fail", 255),
        ("", "success", None),
    ],
)
def test_what_may_follow_the_secret(
    client: Client, engine: Engine, secret: str, action: str, kind: str, code: int | None
) -> None:
    assert client.post(f"/ping/{secret}/{action}").status_code == 200
    assert (engine.last.kind, engine.last.exit_code) == (kind, code)


def test_capitals_are_the_same_secret(client: Client, engine: Engine, secret: str) -> None:
    assert client.get(f"/ping/{secret.upper()}").status_code == 200


@pytest.mark.parametrize(
    "rest",
    [
        "0b5b50ad-f37a-49e5-bb89-11fdf3539838",
        "no-uuid",
        "x" * 5000,
        "{secret}/256",
        "{secret}/-1",
        "{secret}/stop",
        "{secret}/start/now",
        "{secret}/\u0663",
        "{secret}x",
        "{plain}",
    ],
)
def test_what_is_unknown_is_told_as_little_as_what_is_wrong(
    client: Client,
    engine: Engine,
    secret: str,
    rest: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = rest.format(secret=secret, plain=secret.replace("-", ""))
    with caplog.at_level(logging.DEBUG):
        answer = client.get(f"/ping/{path}")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no such ping address"
    assert secret not in caplog.text
    assert secret not in answer.content.decode()
    assert not engine.offers


def test_other_methods_are_refused(client: Client, engine: Engine, secret: str) -> None:
    answer = client.put(f"/ping/{secret}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


def test_the_body_is_kept_up_to_a_bound(client: Client, engine: Engine, secret: str) -> None:
    client.post(f"/ping/{secret}", b"all\x00 done \xff", content_type="text/plain")
    assert engine.last.body == "all done \ufffd"
    client.post(f"/ping/{secret}", b"x" * 3_000_000, content_type="application/octet-stream")
    assert engine.last.body == "x" * MAX_BODY_BYTES


def test_a_target_that_is_pinged_too_often(client: Client, engine: Engine, secret: str) -> None:
    answers = [client.get(f"/ping/{secret}") for _ in range(200)]
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert len(engine.offers) < 150


def test_guessing_is_slowed_down_and_real_pings_are_not(
    client: Client, engine: Engine, secret: str
) -> None:
    codes = {client.get(f"/ping/{uuid.uuid4()}").status_code for _ in range(100)}
    assert codes == {404, 429}
    assert client.get(f"/ping/{secret}").status_code == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LogUnavailable("the disk is full", retry_after_s=5.0), 503),
        (Saturated("no room", retry_after_s=3.0), 429),
    ],
)
def test_a_ping_that_cannot_be_kept_is_refused(
    client: Client,
    engine: Engine,
    secret: str,
    error: Exception,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.error = error
    with caplog.at_level(logging.DEBUG):
        answer = client.get(f"/ping/{secret}")
    assert answer.status_code == status
    assert int(answer.headers["Retry-After"]) >= 3
    assert secret not in caplog.text


def test_without_pipelines_one_comes_back_later(client: Client, secret: str) -> None:
    assert client.get(f"/ping/{secret}").status_code == 503


def test_what_goes_wrong_inside_names_no_secret(
    client: Client, engine: Engine, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine.error = ZeroDivisionError("oops")
    with caplog.at_level(logging.DEBUG):
        answer = client.get(f"/ping/{secret}")
    assert answer.status_code == 500
    assert "oops" not in answer.content.decode()
    assert "could not be taken in" in caplog.text
    assert secret not in caplog.text


def test_a_new_address_ends_the_old_one(
    client: Client, engine: Engine, secret: str, clock: FakeClock
) -> None:
    assert client.get(f"/ping/{secret}").status_code == 200
    target = Target.objects.get()
    assert target.ping_digest == digest_of(secret)
    assert secret not in repr(Target.objects.values().get())
    other = new_ping_secret(target)
    assert target.ping_hint == other[-4:]
    index().refresh()
    assert client.get(f"/ping/{secret}").status_code == 404
    assert client.get(f"/ping/{other}").status_code == 200


# --- the index ---------------------------------------------------------------------------------


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def lose() -> None:
        def away(self: HeartbeatIndex) -> None:
            raise OperationalError("Connection refused")

        monkeypatch.setattr(HeartbeatIndex, "_read", away)

    return lose


def test_a_new_address_is_known_at_once(
    make_target: Callable[..., Target], clock: FakeClock, tmp_path: Path
) -> None:
    """However short a time ago the others were read: its ping is not sent a second time."""
    known = HeartbeatIndex(clock=clock, path=lambda: tmp_path / "heartbeats.json")
    target = make_target()
    known.refresh()
    assert known.look_for("0" * 64) is None
    digest = digest_of(new_ping_secret(target))
    assert known.of_digest(digest) is None
    found = known.look_for(digest)
    assert found is not None
    assert found.name == "backup"
    assert known.of_digest(digest) == found


def test_a_new_address_is_pinged_at_once(
    client: Client, engine: Engine, make_target: Callable[..., Target]
) -> None:
    index().refresh()
    for number in range(3):
        secret = new_ping_secret(make_target(f"backup{number}"))
        assert client.get(f"/ping/{secret}").status_code == 200


def test_a_new_address_whose_stamp_hides_it_is_known_at_once(
    make_target: Callable[..., Target], clock: FakeClock, tmp_path: Path
) -> None:
    target, new = make_target("changed"), str(uuid.uuid4())
    make_target("newest")
    known = HeartbeatIndex(clock=clock, path=lambda: tmp_path / "heartbeats.json")
    known.refresh()
    Target.objects.filter(pk=target.pk).update(ping_digest=digest_of(new))
    assert known.look_for(digest_of(new)) is not None


def test_guesses_from_everywhere_keep_the_database_busy_to_a_bound(
    make_target: Callable[..., Target], clock: FakeClock, tmp_path: Path
) -> None:
    known = HeartbeatIndex(clock=clock, path=lambda: tmp_path / "heartbeats.json")
    for number in range(int(LOOKS_BURST)):
        assert known.look_for(f"{number:064}") is None
    with pytest.raises(IndexUnknown):
        known.look_for("0" * 64)
    digest = digest_of(new_ping_secret(make_target()))
    # Of this one nobody says that it is not there.
    with pytest.raises(IndexUnknown):
        known.look_for(digest)
    clock.advance(1.1 / LOOKS_PER_S)
    assert known.look_for(digest) is not None


def test_a_database_that_failed_is_left_alone_for_a_moment(
    make_target: Callable[..., Target], clock: FakeClock, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    known = HeartbeatIndex(clock=clock, path=lambda: tmp_path / "heartbeats.json")
    known.refresh()
    digest = digest_of(new_ping_secret(make_target()))
    asked: list[None] = []

    def away(self: QuerySet[Target]) -> bool:
        asked.append(None)
        raise OperationalError("Connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(QuerySet, "exists", away)
        for _ in range(5):
            with pytest.raises(IndexUnknown):
                known.look_for(digest)
    assert len(asked) == 1
    clock.advance(AWAY_S)
    assert known.look_for(digest) is not None


@pytest.mark.parametrize("older_s", [2, 3600])
def test_an_address_that_was_stamped_earlier_is_known(
    make_target: Callable[..., Target], clock: FakeClock, tmp_path: Path, older_s: int
) -> None:
    """As by a transaction that was begun before another's and committed after it."""
    target = make_target("changed")
    old, new = new_ping_secret(target), str(uuid.uuid4())
    make_target("newest")
    known = HeartbeatIndex(clock=clock, path=lambda: tmp_path / "heartbeats.json")
    assert known.of_digest(digest_of(old)) is not None
    older = target.updated_at - timedelta(seconds=older_s)
    Target.objects.filter(pk=target.pk).update(ping_digest=digest_of(new), updated_at=older)
    for _ in range(2):
        known.refresh()
    assert known.of_digest(digest_of(new)) is not None
    assert known.of_digest(digest_of(old)) is None


def test_the_last_copy_serves_while_the_database_is_away(
    make_target: Callable[..., Target],
    clock: FakeClock,
    tmp_path: Path,
    lost: Callable[[], None],
) -> None:
    path = tmp_path / "snapshot" / "heartbeats.json"
    secret = new_ping_secret(make_target(address="checkout"))
    HeartbeatIndex(clock=clock, path=lambda: path).refresh()
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in path.read_text()
    lost()
    again = HeartbeatIndex(clock=clock, path=lambda: path)
    found = again.of_digest(digest_of(secret))
    assert found is not None
    assert again.of_service("checkout", "default") == (found,)
    # Another may have been added where nobody can look.
    assert again.of_digest("0" * 64) is None
    with pytest.raises(IndexUnknown):
        again.look_for("0" * 64)


def test_without_database_or_copy_nothing_is_known(
    clock: FakeClock, tmp_path: Path, lost: Callable[[], None]
) -> None:
    lost()
    path = tmp_path / "heartbeats.json"
    with pytest.raises(IndexUnknown):
        HeartbeatIndex(clock=clock, path=lambda: path).of_digest("0" * 64)
    path.write_text("[[1,")
    with pytest.raises(IndexUnknown):
        HeartbeatIndex(clock=clock, path=lambda: path).services()


def test_an_unknown_state_is_answered_by_come_back(
    client: Client, engine: Engine, lost: Callable[[], None], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    lost()
    monkeypatch.setattr(index(), "_path", lambda: tmp_path / "none.json")
    answer = client.get(f"/ping/{uuid.uuid4()}")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
