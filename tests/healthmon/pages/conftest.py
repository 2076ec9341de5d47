"""A cast for public pages.  Imports of ours stand inside: Django is not set up yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def fresh_pages() -> Iterator[None]:
    """Pages that another test had made are not this one's."""
    from healthmon.pages import views

    views.forget()
    yield
    views.forget()


@pytest.fixture
def shop(db: Any) -> Any:
    from tests.healthmon.pages.cast import make_shop

    return make_shop()
