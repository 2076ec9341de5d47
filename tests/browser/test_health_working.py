"""Working with targets in a browser: adding with a trial, choosing a kind, acting on thousands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from healthmon.models import Target
from tests.browser.conftest import OpenPage, serious_findings, too_wide
from tests.healthmon.admin.cast import living_checker, make_incident, make_target

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/healthmon/target/"


class _Ok(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ok)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_target_is_tried_and_then_added(
    open_page: OpenPage, service: str, width: int, dark: bool
) -> None:
    page = open_page(f"{LIST}add/", width=width, dark=dark)
    page.fill("#id_name", "shop")
    page.fill("#id_address", "http://127.0.0.1:9/")
    page.locator("summary:has-text('More options')").click()
    page.fill("#id_option_password", "hush")
    page.click("#try-it")
    page.wait_for_selector("#trial .trial-error")
    assert "failed" in page.inner_text("#trial")
    assert serious_findings(page) == []
    assert not too_wide(page)
    page.fill("#id_address", service)
    page.click("#try-it")
    page.wait_for_selector("#trial strong:has-text('ok')")
    # What was typed is still there, secrets too: nothing was sent back and forth.
    assert page.input_value("#id_option_password") == "hush"
    assert page.input_value("#id_name") == "shop"
    assert serious_findings(page) == []
    assert Target.objects.count() == 0
    page.click("input[name=_save]")
    page.wait_for_selector("text=A first probe of shop: it answered")
    assert page.locator("h1:has-text('shop')").count() == 1
    assert "new" in page.inner_text(".target-status")


def test_choosing_a_kind_swaps_its_fields(open_page: OpenPage) -> None:
    page = open_page(f"{LIST}add/")
    page.fill("#id_name", "names")
    page.fill("#id_interval_s", "77")
    page.select_option("#id_kind", "dns")
    page.wait_for_selector("#id_option_record_type")
    assert page.locator("#id_option_method").count() == 0
    assert page.input_value("#id_name") == "names"
    assert page.input_value("#id_interval_s") == "77"
    assert serious_findings(page) == []
    page.select_option("#id_kind", "heartbeat")
    page.wait_for_selector("#id_option_grace_s")
    # There is nothing to try, and nothing that only probes have.
    assert page.locator("#try-it, #id_timeout_s, #id_failure_threshold").count() == 0
    assert page.input_value("#id_interval_s") == "77"
    page.click("input[name=_save]")
    page.wait_for_selector("text=make its ping address")
    assert Target.objects.get().kind == "heartbeat"
    page.click("button:has-text('Make its ping address')")
    page.wait_for_selector("#ping-address")
    assert "/ping/" in page.input_value("#ping-address")
    assert serious_findings(page) == []


def test_all_across_pages_are_changed_at_once(open_page: OpenPage) -> None:
    living_checker()
    Target.objects.bulk_create(Target(name=f"many-{number:04}") for number in range(250))
    page = open_page(LIST)
    page.check("#action-toggle")
    page.click("a:has-text('Select all 250 targets')")
    page.select_option("select[name=action]", "change_settings")
    page.click("button[name=index]")
    page.wait_for_selector("h1:has-text('Change settings: 250 targets')")
    assert serious_findings(page) == []
    page.fill("[name=interval_s]", "60")
    page.fill("[name=add_tags]", "web")
    page.click("button:has-text('Show what will change')")
    page.wait_for_selector("th:has-text('interval')")
    assert "1 min" in page.inner_text(".ops-table")
    assert serious_findings(page) == []
    assert Target.objects.filter(interval_s=60).count() == 0
    page.click("button:has-text('Change settings: 250 targets')")
    page.wait_for_selector("text=250 targets changed")
    assert Target.objects.filter(interval_s=60, tags__name="web").count() == 250


@pytest.mark.parametrize("action", ["change_settings", "add_maintenance", "delete_chosen"])
def test_an_actions_page_fits_a_phone(open_page: OpenPage, action: str) -> None:
    make_target("shop-with-a-long-name-" * 8)
    page = open_page(LIST, width=390, dark=True)
    page.check("input.action-select")
    page.select_option("select[name=action]", action)
    page.click("button[name=index]")
    page.wait_for_selector(".bulk")
    assert serious_findings(page) == []
    assert not too_wide(page)


def test_the_list_is_narrowed_by_keyboard_alone(open_page: OpenPage) -> None:
    living_checker()
    make_target("shop", "up", tags=("web",))
    make_target("bank", "down")
    page = open_page(LIST)
    page.focus("#searchbar")
    page.keyboard.type("ban")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=ban**")
    assert page.locator("#result_list tbody tr").count() == 1
    page.focus("#filter-paused")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Search"
    page.locator(".target-name").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('bank')")
    assert "down" in page.inner_text(".target-status")


def test_an_incident_is_acknowledged_and_commented_on(open_page: OpenPage) -> None:
    incident = make_incident(make_target("shop", "down"))
    page = open_page(f"/admin/healthmon/incident/{incident.pk}/change/")
    page.click("button:has-text('Acknowledge')")
    page.wait_for_selector("text=Acknowledged: reminders end")
    page.fill("textarea[name=text]", "I am on it")
    page.click("button:has-text('Comment')")
    page.wait_for_selector(".timeline >> text=I am on it")
    page.fill("textarea[name=postmortem]", "The disk was full.")
    page.click("button:has-text('Save')")
    page.wait_for_selector("text=The postmortem is saved")
    incident.refresh_from_db()
    assert incident.acknowledged_by is not None
    assert incident.postmortem == "The disk was full."


def test_on_a_phone_the_filters_are_folded_until_asked_for(open_page: OpenPage) -> None:
    make_target("shop", "up")
    page = open_page(LIST, width=390)
    assert not page.is_visible("#filter-severity")
    page.check("#filter-fold")
    assert page.is_visible("#filter-severity")
    page.goto(f"{LIST}?severity=critical")
    assert page.is_visible("#filter-severity")  # what narrows the list is seen
    assert serious_findings(page) == []
