"""A real browser against the live server: one Chromium for the session, a context for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, Dialog, Page, Playwright, sync_playwright

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
TIMEOUT_MS = 90_000


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


def _chromium(playwright: Playwright) -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    own = playwright.chromium.executable_path
    path = found or (own if Path(own).exists() else None)
    if path is None:
        reason = (
            "No Chromium. Install the package `chromium`, or run `.venv/bin/playwright install "
            "chromium`."
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch:
        # Playwright's event loop runs in the tests' thread, and Django takes that for async code.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=_chromium(playwright), args=FLAGS)
            yield browser
            browser.close()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, live_server: Any, django_user_model: Any) -> Iterator[OpenPage]:
    """`open_page("/admin/", width=390, dark=True)`: a page, logged in unless told otherwise.

    An error of the page's scripts, or a dialog that injected script opens, fails the test.
    """
    contexts = []
    trouble: list[str] = []
    admin = django_user_model.objects.create_superuser("admin", "", "a-long-password")

    def dialog_opened(dialog: Dialog) -> None:
        trouble.append(f"a dialog opened: {dialog.message}")
        dialog.dismiss()

    def open_(path: str, *, width: int = 1280, dark: bool = False, login: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            base_url=live_server.url,
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        if login:
            client = Client()
            client.force_login(admin)
            name = settings.SESSION_COOKIE_NAME
            context.add_cookies(
                [{"name": name, "value": client.cookies[name].value, "url": live_server.url}]
            )
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(f"script error: {error}"))
        page.on("dialog", dialog_opened)
        page.goto(path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert trouble == []


def serious_findings(page: Page) -> list[str]:
    """What axe-core finds to be serious or worse, as lines to read."""
    # Links fade from one colour to the other: what they end at is judged.
    page.evaluate("Promise.all(document.getAnimations().map(fading => fading.finished))")
    results = Axe().run(page)
    return [
        f"{found['impact']} {found['id']}: {node['html'][:160]} {node['any'][:1]}"
        for found in results.response["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


def too_wide(page: Page) -> bool:
    """Whether the page scrolls sideways."""
    root = "document.documentElement"
    return bool(page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))
