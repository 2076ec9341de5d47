"""The public status page in a browser: accessible, within a phone's width, without scripts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from healthmon.targets.models import Target
from tests.browser.conftest import OpenPage, serious_findings, too_wide
from tests.healthmon.pages.cast import Shop, make_shop

pytestmark = pytest.mark.django_db(transaction=True)

LONG = "a-service-with-a-very-long-name-" * 6


@pytest.fixture
def shop() -> Any:
    from healthmon.pages import views

    views.forget()
    yield make_shop()
    views.forget()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page(shop: Shop, open_page: OpenPage, width: int, dark: bool) -> None:
    Target.objects.filter(name="Ledger").update(name=LONG)
    shop.page.show_latency = True
    shop.page.save()
    page = open_page("/status/shop", width=width, dark=dark, login=False)
    assert page.locator("h1").inner_text() == "The shop"
    assert page.locator(".overall strong").inner_text() == "1 of 4 services is down"
    assert page.locator("svg.ribbon").count() == 4
    assert "99.907 % uptime" in page.locator("li", has_text="Web").inner_text()
    assert serious_findings(page) == []
    assert not too_wide(page)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(16, 20, 26)" if dark else "rgb(245, 246, 248)")


def test_the_page_without_a_style_sheet_or_a_script_still_tells(
    shop: Shop, open_page: OpenPage, browser: Any, live_server: Any
) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=live_server.url)
    page = context.new_page()
    page.route("**/*.css", lambda route: route.abort())
    page.goto("/status/shop")
    said = page.locator("main").inner_text()
    assert "1 of 4 services is down" in said
    assert "Operational" in said
    assert "We are on it." in said
    context.close()


def test_an_empty_and_a_quiet_page(shop: Shop, open_page: OpenPage) -> None:
    shop.page.groups.clear()
    shop.page.tags.clear()
    page = open_page("/status/shop", width=390, login=False)
    assert "No service is shown" in page.locator("main").inner_text()
    assert serious_findings(page) == []
    assert not too_wide(page)


def test_badges_are_images(shop: Shop, open_page: OpenPage) -> None:
    page = open_page("/badge/checkout.svg", login=False)
    assert page.locator("svg").get_attribute("aria-label") == "status: down"


@pytest.mark.parametrize("width", [390, 1280])
def test_its_admin(shop: Shop, open_page: OpenPage, width: int) -> None:
    page = open_page("/admin/healthmon/statuspage/", width=width)
    assert page.locator("td.field-targets").inner_text() == "4"
    assert serious_findings(page) == []
    assert not too_wide(page)
    page.goto(f"/admin/healthmon/statuspage/{shop.page.pk}/change/")
    assert page.locator(".field-addresses a").count() == 3
    assert serious_findings(page) == []
    assert not too_wide(page)


def test_publishing_shows_it(shop: Shop, open_page: OpenPage) -> None:
    shop.page.published = False
    shop.page.save()
    page = open_page("/admin/healthmon/statuspage/")
    page.locator("input.action-select").check()
    page.locator("select[name=action]").select_option("publish")
    page.locator("button[name=index]").click()
    page.locator(".messagelist").wait_for()
    page.goto("/status/shop")
    assert page.locator("h1").inner_text() == "The shop"
    began = timezone.now() - timedelta(days=1)
    assert shop.page.updated_at > began
