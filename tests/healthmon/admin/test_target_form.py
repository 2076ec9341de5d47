"""Adding and changing a target: typed options, the trial, secrets, kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.test import Client

from healthmon.admin import trial
from healthmon.models import Tag, Target
from healthmon.targets.options import plain_options
from tests.healthmon.admin.cast import make_target

pytestmark = pytest.mark.django_db

LIST = "/admin/healthmon/target/"
ADD = f"{LIST}add/"


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wanted = self.headers.get("Authorization", "")
        self.send_response(200 if self.path == "/" or wanted else 503)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def sent(address: str, /, **changes: Any) -> dict[str, Any]:
    data = {
        "name": "shop", "kind": "http", "kind_shown": "http", "address": address,
        "option_method": "GET", "option_json_operator": "==", "option_max_redirects": "5",
        "option_cert_days_degraded": "14", "option_cert_days_failed": "0",
        "option_expected_status": "200-299", "option_verify_tls": "on",
        "option_follow_redirects": "on",
        "interval_s": "30", "timeout_s": "2", "retry_interval_s": "5", "failure_threshold": "3",
        "success_threshold": "2", "severity": "critical", "tag_names": "", "parent_names": "",
        "slo_days": "30", "notes": "", "service": "",
    }  # fmt: skip
    return {**data, **changes}


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def errors_of(response: Any) -> dict[str, list[str]]:
    errors: dict[str, list[str]] = response.context["adminform"].form.errors
    return errors


def test_the_form_is_good_without_reading(admin_client: Client, service: str) -> None:
    """What the form shows is what it takes: only a name and an address are missing."""
    form = admin_client.get(ADD).context["adminform"].form
    data = {name: form[name].value() for name in form.fields}
    data = {name: value for name, value in data.items() if value not in (None, False, {}, [])}
    data |= {"name": "shop", "address": f"{service}/"}
    response = admin_client.post(ADD, data)
    target = Target.objects.get()
    assert response.status_code == 302
    assert response["Location"] == f"{LIST}{target.pk}/"
    assert target.options == {}
    assert target.owner is not None


def test_saving_probes_and_tells(admin_client: Client, service: str) -> None:
    response = admin_client.post(ADD, sent(f"{service}/", tag_names="web, eu, web"))
    told = messages_of(response)
    assert any("A first probe of shop: it answered in" in text for text in told)
    assert {tag.name for tag in Target.objects.get().tags.all()} == {"web", "eu"}


def test_an_unreachable_target_is_saved_and_the_result_told(admin_client: Client) -> None:
    response = admin_client.post(ADD, sent("http://127.0.0.1:9/"))
    assert Target.objects.count() == 1
    assert any("failed in" in text and "refused" in text for text in messages_of(response))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"address": "not a url"}, "address"),
        ({"address": ""}, "address"),
        ({"interval_s": "0.5"}, "interval_s"),
        ({"timeout_s": "100", "interval_s": "1"}, "timeout_s"),
        ({"option_expected_status": "2xx?"}, "option_expected_status"),
        ({"option_max_redirects": "99"}, "option_max_redirects"),
        ({"option_headers": "no equals sign"}, "option_headers"),
        ({"parent_names": "absent"}, "parent_names"),
        ({"tag_names": "x" * 64}, "tag_names"),
        ({"kind": "nonsense"}, "kind"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    admin_client: Client, changes: dict[str, str], field: str
) -> None:
    response = admin_client.post(ADD, sent("http://127.0.0.1:9/", **changes))
    assert response.status_code == 200
    found = errors_of(response)
    assert field in found, found
    assert not Target.objects.exists()


def test_try_it_shows_the_phases_and_saves_nothing(admin_client: Client, service: str) -> None:
    data = sent(f"{service}/", name="")
    body = admin_client.post(f"{LIST}try/", data, HTTP_HX_REQUEST="true").content.decode()
    assert "<strong>ok</strong>" in body
    assert "answered 200" in body
    assert "connect" in body
    assert 'class="phases"' in body
    assert "<html" not in body
    assert not Target.objects.exists()


def test_try_it_tells_what_went_wrong(admin_client: Client, service: str) -> None:
    body = admin_client.post(f"{LIST}try/", sent(f"{service}/broken")).content.decode()
    assert "<strong>failed</strong>" in body
    assert "503" in body
    assert "It can be saved all the same" in body
    assert "<html" in body  # without scripts, a page of its own


def test_try_it_says_what_is_missing(admin_client: Client) -> None:
    data = sent("http://", option_expected_status="nonsense")
    body = admin_client.post(f"{LIST}try/", data, HTTP_HX_REQUEST="true").content.decode()
    assert "notice-warning" in body


def test_a_slow_answer_is_degraded(admin_client: Client, service: str) -> None:
    data = sent(f"{service}/", degraded_after_ms="0.1")
    body = admin_client.post(f"{LIST}try/", data, HTTP_HX_REQUEST="true").content.decode()
    assert "<strong>degraded</strong>" in body


def test_trials_are_bounded(admin_client: Client, service: str) -> None:
    held = [trial._permits.acquire(blocking=False) for _ in range(trial.MOST_AT_ONCE)]
    try:
        body = admin_client.post(f"{LIST}try/", sent(f"{service}/")).content.decode()
        assert "tried already" in body
    finally:
        for _ in held:
            trial._permits.release()
    assert "<strong>ok" in admin_client.post(f"{LIST}try/", sent(f"{service}/")).content.decode()


def test_secrets_are_written_and_never_shown_again(admin_client: Client, service: str) -> None:
    data = sent(f"{service}/private", option_username="u", option_password="hush-hush")
    response = admin_client.post(ADD, data)
    assert any("it answered" in text for text in messages_of(response))
    target = Target.objects.get()
    assert "hush" not in str(target.options)
    assert "hush" not in str(target.secrets)
    page = admin_client.get(f"{LIST}{target.pk}/change/").content.decode()
    assert "hush" not in page
    assert "A value is stored, encrypted" in page
    # Left empty it is kept, for a trial too.
    data["option_password"] = ""
    tried = admin_client.post(f"{LIST}{target.pk}/try/", data, HTTP_HX_REQUEST="true")
    assert "<strong>ok</strong>" in tried.content.decode()
    admin_client.post(f"{LIST}{target.pk}/change/", {**data, "interval_s": "60"})
    target.refresh_from_db()
    assert target.interval_s == 60
    assert plain_options(target)["password"] == "hush-hush"
    for path in (f"{LIST}{target.pk}/", LIST):
        assert "hush" not in admin_client.get(path).content.decode()


def test_another_kind_brings_its_own_fields(admin_client: Client) -> None:
    data = sent("http://127.0.0.1:9/", kind="dns", option_password="hush-hush")
    body = admin_client.post(f"{LIST}fields/", data).content.decode()
    assert 'name="option_record_type"' in body
    assert "option_method" not in body
    assert 'name="kind_shown" value="dns"' in body
    assert "hush" not in body
    assert "<html" not in body


def test_without_scripts_another_kind_is_shown_before_it_is_saved(admin_client: Client) -> None:
    response = admin_client.post(ADD, sent("example.test", kind="dns"))
    assert "options of this kind" in str(errors_of(response)["kind"])
    body = response.content.decode()
    assert 'name="option_record_type"' in body
    assert re.search(r'name="kind_shown" value="dns"', body)
    assert not Target.objects.exists()


def test_a_kind_that_cannot_be_loaded_keeps_its_options(admin_client: Client) -> None:
    target = make_target("odd", kind="third.party.KIND", options={"a": 1})
    response = admin_client.get(f"{LIST}{target.pk}/change/")
    assert "third.party.KIND (not available)" in response.content.decode()
    admin_client.get(f"{LIST}{target.pk}/")
    target.refresh_from_db()
    assert target.options == {"a": 1}


def test_parents_are_named_and_cannot_go_round(admin_client: Client, service: str) -> None:
    switch, shop = make_target("switch"), make_target("shop")
    switch.parents.add(shop)
    data = sent(f"{service}/", parent_names="switch")
    response = admin_client.post(f"{LIST}{shop.pk}/change/", data)
    assert "its own parent" in str(errors_of(response)["parent_names"])
    switch.parents.clear()
    assert admin_client.post(f"{LIST}{shop.pk}/change/", data).status_code == 302
    assert list(shop.parents.all()) == [switch]


def test_only_viewing_shows_no_form_fields(client_who_may: Callable[..., Client]) -> None:
    target = make_target("shop", tags=("web",))
    client = client_who_may("view_target")
    assert client.get(f"{LIST}{target.pk}/").status_code == 200
    looked = client.get(f"{LIST}{target.pk}/change/")
    assert looked["Location"] == f"{LIST}{target.pk}/"
    for name in ("try", "fields", "run", "pause", "ping-address"):
        answer = client.post(f"{LIST}{target.pk}/{name}/", sent("http://127.0.0.1:9/"))
        assert answer.status_code == 403, name
    assert client.post(f"{LIST}try/", sent("http://127.0.0.1:9/")).status_code == 403


def test_a_ping_address_is_shown_once(admin_client: Client) -> None:
    target = make_target("backup", kind="heartbeat", address="")
    made = admin_client.post(f"{LIST}{target.pk}/ping-address/")
    (address,) = re.findall(
        r'value="(http://testserver/ping/[0-9a-f-]{36})"', made.content.decode()
    )
    secret = address.rpartition("/")[2]
    assert "no-store" in made["Cache-Control"]
    target.refresh_from_db()
    assert target.ping_digest
    assert secret not in target.ping_digest
    page = admin_client.get(f"{LIST}{target.pk}/").content.decode()
    assert secret not in page
    assert f"…{target.ping_hint}" in page
    assert admin_client.get(f"{LIST}{target.pk}/ping-address/").status_code == 405
    other = make_target("web")
    assert admin_client.post(f"{LIST}{other.pk}/ping-address/").status_code == 404


def test_a_heartbeat_is_saved_without_an_address(admin_client: Client) -> None:
    data = sent("", kind="heartbeat", kind_shown="heartbeat", interval_s="3600")
    response = admin_client.post(ADD, data)
    assert response.status_code == 302, errors_of(response)
    assert any("ping address" in text for text in messages_of(response))


def test_tags_are_taken_away_too(admin_client: Client, service: str) -> None:
    target = make_target("shop", tags=("old", "web"))
    admin_client.post(f"{LIST}{target.pk}/change/", sent(f"{service}/", tag_names="web"))
    assert [tag.name for tag in target.tags.all()] == ["web"]
    assert Tag.objects.filter(name="old").exists()
