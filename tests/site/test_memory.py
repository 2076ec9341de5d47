"""The allocator's settings, and that another allocator is no error."""

from __future__ import annotations

import ctypes
import platform

import pytest

from collector_site.memory import bound_arenas


def test_the_bound_is_taken_where_there_is_something_to_bound() -> None:
    assert bound_arenas() == (platform.libc_ver()[0] == "glibc")


def test_an_allocator_without_arenas_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: object) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    assert not bound_arenas()
