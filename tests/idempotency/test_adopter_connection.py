"""The adopter's thread leaves no connection to the control database behind."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from control.idempotency.service import settle_adopted


@pytest.mark.django_db(transaction=True)
def test_the_adopters_thread_ends_without_a_connection() -> None:
    left: list[object] = []

    def adopt() -> None:
        settle_adopted("a-log", frozenset())
        left.append(connection.connection)
        connection.close()

    thread = threading.Thread(target=adopt)
    thread.start()
    thread.join(60.0)
    assert left == [None]
