"""Wake-ups from a real database: another connection commits, and the runner hears of it."""

from __future__ import annotations

import threading

import pytest
from django.db import connections, transaction

from jobs.running import waker
from jobs.running.waker import Waker

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")
GENEROUS_S = 60.0


def tell() -> None:
    """What the store does when jobs are queued."""
    from control.auth.models import Tenant

    with transaction.atomic(using="default"):
        Tenant.objects.create(slug=f"t{threading.get_ident()}")
        if connections["default"].vendor == "postgresql":
            with connections["default"].cursor() as cursor:
                cursor.execute(f"NOTIFY {waker.CHANNEL}, 'queued'")


def in_thread() -> None:
    def run() -> None:
        try:
            tell()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(GENEROUS_S)


def test_it_wakes_at_its_start_and_at_each_commit_of_others() -> None:
    woken = threading.Semaphore(0)
    made = Waker(wake=woken.release)
    made.start()
    made.start()
    try:
        assert woken.acquire(timeout=GENEROUS_S), "for what came before it listened"
        while woken.acquire(blocking=False):
            pass
        in_thread()
        assert woken.acquire(timeout=GENEROUS_S)
    finally:
        assert made.stop(GENEROUS_S)


def test_it_listens_again_when_its_connection_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waker, "RETRY_S", 0.01)
    woken = threading.Semaphore(0)
    lost: list[bool] = []

    def wake() -> None:
        woken.release()
        if not lost:
            lost.append(True)
            raise OSError("the connection was lost")

    made = Waker(wake=wake)
    made.start()
    try:
        for _ in range(2):
            assert woken.acquire(timeout=GENEROUS_S)
        while woken.acquire(blocking=False):
            pass
        in_thread()
        assert woken.acquire(timeout=GENEROUS_S)
    finally:
        assert made.stop(GENEROUS_S)
