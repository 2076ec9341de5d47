"""Options in a row: secrets encrypted, kept, replaced by references, and never among the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sinks.optionrows import plain_options, set_options
from sinks.secrets import SecretError

SECRET = frozenset({"token", "other"})


def row(**given: Any) -> Any:
    made = SimpleNamespace(options={}, secrets={})
    set_options(made, given, secret=SECRET)
    return made


def test_what_is_secret_is_encrypted_and_comes_back() -> None:
    made = row(host="x", token="hunter2")
    assert made.options == {"host": "x"}
    assert "hunter2" not in str(made.secrets)
    assert plain_options(made, secret=SECRET) == {"host": "x", "token": "hunter2"}


def test_a_reference_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    made = row(token="env:COLLECTOR_TEST_TOKEN")
    assert (made.options, made.secrets) == ({"token": "env:COLLECTOR_TEST_TOKEN"}, {})
    monkeypatch.setenv("COLLECTOR_TEST_TOKEN", "hunter2")
    assert plain_options(made, secret=SECRET) == {"token": "hunter2"}
    monkeypatch.delenv("COLLECTOR_TEST_TOKEN")
    with pytest.raises(SecretError):
        plain_options(made, secret=SECRET)


def test_kept_ones_stay_unless_replaced() -> None:
    made = row(token="one", other="two")
    set_options(made, {"host": "y"}, secret=SECRET, keep=["token", "nothing"])
    assert plain_options(made, secret=SECRET) == {"host": "y", "token": "one"}
    set_options(made, {"token": "env:ELSEWHERE"}, secret=SECRET, keep=["token"])
    assert (made.options, made.secrets) == ({"token": "env:ELSEWHERE"}, {})


def test_what_is_no_longer_secret_is_not_kept() -> None:
    made = row(token="one")
    set_options(made, {}, secret=frozenset(), keep=["token"])
    assert made.secrets == {}
