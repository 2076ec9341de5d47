"""Working in the admin with a keyboard, a clock that ticks, and a server that may go away."""

from __future__ import annotations

import re

import pytest
from django.utils import timezone
from playwright.sync_api import Page

from control.auth.keys import keyring
from control.models import ApiKey, Process, Tenant
from tests.admin.cast import ledger_row, make_log, make_process, make_samples, pipeline_stats
from tests.browser.conftest import OpenPage, serious_findings, too_wide

pytestmark = pytest.mark.django_db(transaction=True)

REFRESH = "htmx.trigger('#panels', 'refresh')"
# Everything one can act upon: seen, and not taken out of the order on purpose.
ACTIONS = """() => [...document.querySelectorAll(
    'a[href], button, input:not([type=hidden]), select, textarea, [tabindex="0"]')]
  .filter(e => e.tabIndex >= 0 && !e.disabled && e.getClientRects().length
    && e.checkVisibility({visibilityProperty: true}))
  .map((e, i) => { e.dataset.reach = i; return i; })"""
FOCUSED = """() => {
  const e = document.activeElement, s = getComputedStyle(e);
  return [e.dataset.reach ?? null,
    s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2, e.outerHTML.slice(0, 120)];
}"""


def unreached(page: Page) -> list[str]:
    """What Tab does not reach, or reaches without showing where it is."""
    wanted = {str(index) for index in page.evaluate(ACTIONS)}
    assert wanted
    unseen = []
    missing = set(wanted)
    for _ in range(len(wanted) + 40):  # a datetime field takes several Tabs
        page.keyboard.press("Tab")
        reached, visible, html = page.evaluate(FOCUSED)
        if reached is not None:
            missing.discard(reached)
            if not visible:
                unseen.append(f"no visible focus: {html}")
        if not missing:
            break
    for index in missing:
        html = page.evaluate(
            f"document.querySelector('[data-reach=\"{index}\"]').outerHTML.slice(0, 120)"
        )
        unseen.append(f"not reached: {html}")
    return unseen


def test_every_action_is_reached_by_tab_with_visible_focus(open_page: OpenPage) -> None:
    make_samples(make_process())
    make_process(pid=2, stopped_at=timezone.now(), ledger=[ledger_row()])
    log = make_log(payload={"a": 1})
    for path in (
        "/admin/?live=off",
        "/admin/ingest/logrecord/",
        f"/admin/ingest/logrecord/{log.pk}/change/",
        "/admin/control/apikey/add/",
        "/admin/log/",
    ):
        assert unreached(open_page(path)) == [], path


def test_the_dashboard_refreshes_itself(open_page: OpenPage) -> None:
    process = make_process()
    page = open_page("/admin/", width=600)
    box = page.locator("#scroll-pipelines")
    box.evaluate("e => { e.scrollLeft = 40; }")
    page.focus(f"#process-{process.pk}")
    Process.objects.filter(pk=process.pk).update(
        stats={"pipelines": [pipeline_stats(paused=True, last_error="disk on fire")]}
    )
    page.evaluate(REFRESH)
    page.wait_for_selector("text=disk on fire")
    assert page.evaluate("document.querySelector('#scroll-pipelines').scrollLeft") == 40
    assert page.evaluate("document.activeElement.id") == f"process-{process.pk}"
    assert page.locator("h1").count() == 1


def test_what_was_unfolded_stays_so_when_the_figures_are_fetched_again(
    open_page: OpenPage,
) -> None:
    make_process()
    make_process(pid=2, stopped_at=timezone.now(), ledger=[ledger_row()])
    page = open_page("/admin/")
    page.click("#ended-ledgers-summary")
    page.wait_for_selector("#ended-ledgers[open]")
    Process.objects.filter(pid=2).update(host="renamed")
    page.evaluate(REFRESH)
    page.wait_for_selector("#ended-ledgers h3:has-text('renamed')")


def test_figures_that_cannot_be_refreshed_are_called_old(open_page: OpenPage) -> None:
    make_process()
    page = open_page("/admin/")
    page.route("**/admin/dashboard/", lambda route: route.abort())
    page.evaluate(REFRESH)
    page.wait_for_selector("#ops-state.stale:has-text('these figures are old')")
    page.unroute("**/admin/dashboard/")
    page.evaluate(REFRESH)
    page.wait_for_selector("#ops-state:not(.stale):has-text('Live')")


def test_a_session_that_ended_leads_to_the_login_page(open_page: OpenPage) -> None:
    page = open_page("/admin/")
    page.context.clear_cookies()
    page.evaluate(REFRESH)
    page.wait_for_selector("#id_password")
    assert page.locator("#panels").count() == 0


def test_a_key_is_created_by_hand_and_shown_once(open_page: OpenPage) -> None:
    Tenant.objects.get_or_create(slug="default")
    page = open_page("/admin/control/apikey/add/", width=390)
    page.fill("#id_name", "shop")
    page.get_by_label("read: read records and figures").check()
    page.click("input[name=_save]")
    token = page.input_value("#token")
    assert re.fullmatch(r"ck_[a-z0-9]+_[\w-]+", token)
    assert serious_findings(page) == []
    assert not too_wide(page)
    keyring().refresh()
    principal = keyring().authenticate(token)
    assert principal is not None
    assert "read" in principal.scopes
    page.click("text=I have copied it")
    assert token not in page.content()
    page.click("text=shop")
    assert token not in page.content()
    page.goto("/admin/")
    assert token not in page.content()
    page.go_back()
    page.go_back()
    assert token not in page.content()
    assert ApiKey.objects.count() == 1


def test_a_search_is_typed_and_leads_to_the_record(open_page: OpenPage) -> None:
    make_log(message="status installed libc6:amd64", service="dpkg")
    make_log(message="order placed", ago_s=20)
    page = open_page("/admin/ingest/logrecord/")
    page.get_by_label("Search the message").fill("installed")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=installed**")
    assert page.locator("#result_list tbody tr").count() == 1
    page.click("#result_list tbody a")
    page.wait_for_selector("pre.record-text:has-text('libc6')")


def test_the_theme_toggle_changes_the_colours(open_page: OpenPage) -> None:
    page = open_page("/admin/?live=off")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    dark = page.evaluate(colour)
    assert light != dark
    assert serious_findings(page) == []
