"""Fixtures of the API's tests: keys of each scope, and a client that speaks JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client


@pytest.fixture(autouse=True)
def fresh_keys(db: None) -> Iterator[None]:
    """Keys of a test that was rolled back are not the next one's."""
    from control.auth.keys import keyring

    keyring().invalidate()
    assert keyring().known
    yield
    keyring().take_used()
    keyring().invalidate()


class Api:
    def __init__(self, client: Client, token: str = "") -> None:
        self._client = client
        self._headers = {"X-API-Key": token} if token else {}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self._client.generic(
            method,
            path,
            data=body if isinstance(body, bytes | str) else _json(body),
            content_type="application/json",
            headers={**self._headers, **headers},
        )


def _json(body: Any) -> bytes:
    import msgspec

    return b"" if body is None else msgspec.json.encode(body)


@pytest.fixture
def api(client: Client) -> Api:
    """Without a key, from this machine."""
    return Api(client)


@pytest.fixture
def api_with(client: Client) -> Callable[..., Api]:
    from control.auth.keys import create_key, keyring

    def make(*scopes: str) -> Api:
        _, token = create_key(tenant="default", name=f"key {scopes}", scopes=scopes)
        keyring().invalidate()
        return Api(client, token)

    return make
