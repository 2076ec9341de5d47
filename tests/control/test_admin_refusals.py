"""What a browser is shown in the admin that is not there, or may not be seen."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
GONE = "/admin/jobs/job/01234567-89ab-7def-8123-456789abcdef/story/"


@pytest.fixture
def operator(django_user_model: Any) -> Client:
    user = django_user_model.objects.create_superuser("ada", "", "a-long-password")
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (GONE, "There is no such job; ended ones are forgotten"),
        ("/admin/jobs/nothing/", "The address is wrong, or what was here is not kept"),
    ],
)
def test_what_is_not_there_is_said_on_the_admins_own_page(operator, path, words):
    answer = operator.get(path, headers=HTML)
    assert answer.status_code == 404
    assert answer["Content-Type"].startswith("text/html")
    text = answer.content.decode()
    assert words in text
    assert "Collector" in text
    assert answer["X-Request-ID"] in text


def test_what_may_not_be_done_is_said_so_too(client, django_user_model):
    client.force_login(
        django_user_model.objects.create_user("eve", "", "a-long-password", is_staff=True)
    )
    answer = client.get("/admin/jobs/job/", headers=HTML)
    assert answer.status_code == 403
    assert "Your account may not do this" in answer.content.decode()


@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
def test_programs_are_answered_as_everywhere(operator, accept):
    answer = operator.get(GONE, headers={"Accept": accept})
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"


def test_elsewhere_a_browser_is_answered_as_everybody(client):
    answer = client.get("/nothing", headers=HTML)
    assert answer["Content-Type"] == "application/problem+json"
