from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from control.auth.keys import create_key, keyring
from control.models import ApiKey, Tenant

pytestmark = pytest.mark.django_db

KEYS = "/admin/control/apikey/"


def tenant() -> Tenant:
    return Tenant.objects.get_or_create(slug="default")[0]


def form(client: Client, **changes: Any) -> dict[str, Any]:
    page = client.get(f"{KEYS}add/").content.decode()
    once = re.search(r'name="once" value="([^"]+)"', page)
    assert once
    return {
        "tenant": tenant().pk,
        "name": "shop",
        "scopes": ["logs", "events"],
        "min_ack": "",
        "expires_at": "",
        "once": once[1],
        **changes,
    }


def token_in(html: str) -> str:
    found = re.findall(r'value="(ck_[a-z0-9]+_[\w-]+)"', html)
    assert len(found) == 1
    return str(found[0])


def test_a_key_is_shown_once_and_works(admin_client: Client) -> None:
    response = admin_client.post(f"{KEYS}add/", form(admin_client))
    token = token_in(response.content.decode())
    assert "no-store" in response["Cache-Control"]
    key = ApiKey.objects.get()
    assert key.digest == hashlib.sha256(token.encode()).hexdigest()
    assert key.scopes == ["logs", "events"]
    keyring().refresh()
    principal = keyring().authenticate(token)
    assert principal is not None
    assert principal.scopes == {"logs", "events"}
    for page in (KEYS, f"{KEYS}{key.pk}/change/", f"{KEYS}{key.pk}/history/", "/admin/"):
        assert token not in admin_client.get(page).content.decode()


def test_the_token_is_kept_nowhere(admin_client: Client) -> None:
    response = admin_client.post(f"{KEYS}add/", form(admin_client))
    token = token_in(response.content.decode())
    secret = token.split("_", 2)[2]
    assert secret not in str(LogEntry.objects.values_list())
    assert secret not in str([session.get_decoded() for session in Session.objects.all()])
    assert secret not in str(response.cookies)
    assert secret not in str(ApiKey.objects.values_list())


def test_sending_the_form_again_makes_no_second_key(admin_client: Client) -> None:
    data = form(admin_client)
    admin_client.post(f"{KEYS}add/", data)
    again = admin_client.post(f"{KEYS}add/", data, follow=True)
    assert ApiKey.objects.count() == 1
    assert "made its key already" in again.content.decode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scopes": []}, "This field is required"),
        ({"scopes": ["root"]}, "Select a valid choice"),
        ({"name": ""}, "This field is required"),
        ({"expires_at": "2020-01-01T00:00"}, "This time has passed"),
    ],
)
def test_a_bad_form_makes_no_key(admin_client: Client, changes: dict[str, Any], words: str) -> None:
    response = admin_client.post(f"{KEYS}add/", form(admin_client, **changes))
    assert words in response.content.decode()
    assert not ApiKey.objects.exists()


def test_scopes_and_expiry_can_be_changed_but_not_the_tenant(admin_client: Client) -> None:
    key, token = create_key(tenant=tenant(), name="shop", scopes=["logs"])
    other = Tenant.objects.create(slug="other")
    soon = timezone.now() + timedelta(days=1)
    response = admin_client.post(
        f"{KEYS}{key.pk}/change/",
        {
            "tenant": other.pk,
            "name": "shop 2",
            "scopes": ["read"],
            "min_ack": "stored",
            "expires_at": f"{soon:%Y-%m-%dT%H:%M:%S}",
        },
    )
    assert response.status_code == 302
    key.refresh_from_db()
    assert (key.name, key.scopes, key.min_ack) == ("shop 2", ["read"], "stored")
    assert key.tenant.slug == "default"
    assert hashlib.sha256(token.encode()).hexdigest() == key.digest


def test_revoking_asks_first_and_then_refuses_the_token(admin_client: Client) -> None:
    key, token = create_key(tenant=tenant(), name="shop", scopes=["logs"])
    keyring().refresh()
    assert keyring().authenticate(token) is not None
    assert "cannot be undone" in admin_client.get(f"{KEYS}{key.pk}/revoke/").content.decode()
    key.refresh_from_db()
    assert key.revoked_at is None
    admin_client.post(f"{KEYS}{key.pk}/revoke/")
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert keyring().authenticate(token) is None
    assert "revoked" in admin_client.get(KEYS).content.decode()


def test_several_are_revoked_by_action(admin_client: Client) -> None:
    keys = [create_key(tenant=tenant(), name=f"k{n}", scopes=["logs"])[0] for n in range(3)]
    chosen = [keys[0].pk, keys[1].pk]
    response = admin_client.post(
        KEYS, {"action": "revoke", "_selected_action": chosen}, follow=True
    )
    assert "2 revoked" in response.content.decode()
    assert list(ApiKey.objects.filter(revoked_at=None)) == [keys[2]]


def test_a_key_cannot_be_deleted(admin_client: Client) -> None:
    key, _ = create_key(tenant=tenant(), name="shop", scopes=["logs"])
    assert admin_client.post(f"{KEYS}{key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in admin_client.get(KEYS).content.decode()


def test_revoking_needs_the_right_to_change(client: Client, django_user_model: Any) -> None:
    key, _ = create_key(tenant=tenant(), name="shop", scopes=["logs"])
    viewer = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    client.force_login(viewer)
    assert client.post(f"{KEYS}{key.pk}/revoke/").status_code == 403
    key.refresh_from_db()
    assert key.revoked_at is None


def test_the_first_key_says_that_it_closes_the_door(admin_client: Client) -> None:
    said = "every request needs a key, also from this machine"
    assert said in admin_client.get(f"{KEYS}add/").content.decode()
    made = admin_client.post(f"{KEYS}add/", form(admin_client)).content.decode()
    assert said in made
    assert said not in admin_client.get(f"{KEYS}add/").content.decode()
    made = admin_client.post(f"{KEYS}add/", form(admin_client)).content.decode()
    assert token_in(made)
    assert said not in made
