"""Fixtures of the tests of jobs' admin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client


@pytest.fixture
def client_who_may(django_user_model: Any, db: None) -> Callable[..., Client]:
    """`client_who_may("view_job")`: a client logged in as staff with these permissions."""

    # Imported here: models cannot be before Django is set up.
    from django.contrib.auth.models import Permission

    def make(*codenames: str) -> Client:
        user = django_user_model.objects.create_user("staff", "", "a-long-password", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return make
