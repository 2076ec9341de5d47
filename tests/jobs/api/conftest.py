"""What the API's tests stand on: a type, keys, a client that speaks JSON, an empty room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from django.test import Client

if TYPE_CHECKING:
    from jobs.types.models import JobType

SCHEMA = {
    "type": "object",
    "properties": {"user_id": {"type": "integer"}},
    "required": ["user_id"],
}


@pytest.fixture(autouse=True)
def fresh(db: None) -> Iterator[None]:
    """Keys, types and counts of a test that was rolled back are not the next one's."""
    from control.auth.keys import keyring
    from jobs.api import tools
    from jobs.types import catalogue

    keyring().invalidate()
    assert keyring().known
    tools.reset()
    yield
    keyring().take_used()
    keyring().invalidate()
    tools.reset()
    catalogue._current = catalogue.Catalogue()


@pytest.fixture
def make_type(db: None) -> Callable[..., JobType]:
    from jobs.types import catalogue
    from jobs.types.models import JobType

    def make(name: str = "verify", **fields: Any) -> JobType:
        fields.setdefault("payload_schema", SCHEMA)
        row = JobType.objects.create(name=name, **fields)
        catalogue.refresh()
        return row

    return make


@pytest.fixture
def verify(make_type: Callable[..., JobType]) -> JobType:
    return make_type()


class Api:
    def __init__(self, client: Client, token: str = "") -> None:
        self._client = client
        self._headers = {"X-API-Key": token} if token else {}

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        raw = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            raw = msgspec.json.encode(body)
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        kind = headers.pop("Content-Type", "application/json")
        return self._client.generic(
            method, path, data=raw, content_type=kind, headers={**self._headers, **headers}
        )


@pytest.fixture
def api(client: Client) -> Api:
    """Without a key, from this machine."""
    return Api(client)


@pytest.fixture
def api_with(client: Client) -> Callable[..., Api]:
    from control.auth.keys import create_key, keyring
    from control.auth.models import Tenant

    def make(*scopes: str, tenant: str = "default", **more: Any) -> Api:
        Tenant.objects.get_or_create(slug=tenant)
        _, token = create_key(tenant=tenant, name=f"key {scopes}", scopes=scopes, **more)
        keyring().invalidate()
        return Api(client, token)

    return make
