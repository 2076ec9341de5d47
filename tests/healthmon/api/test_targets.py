"""Targets over HTTP: who may do what, what is refused and why, and that checkers see it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from control.web.api import MAX_BODY_BYTES
from healthmon.targets.models import Tag, Target, TargetGroup
from healthmon.targets.options import plain_options
from healthmon.truth.models import TargetState

pytestmark = pytest.mark.django_db

WEB = {"name": "web", "kind": "http", "address": "https://shop.example/", "interval_s": 15}


def refusal(answer, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer["X-Request-ID"]
    return body


def make(count: int, **fields) -> list[Target]:
    return [
        Target.objects.create(name=f"t{n}", kind="tcp", address="127.0.0.1:1", **fields)
        for n in range(count)
    ]


def test_a_target_is_made_looked_at_changed_and_removed(api):
    TargetGroup.objects.create(name="front")
    get_user_model().objects.create_user("ada")
    (parent,) = make(1)
    answer = api(
        "POST",
        "/api/targets",
        {**WEB, "tags": ["b", "a"], "group": "front", "owner": "ada", "parents": [parent.pk]},
    )
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert answer["Location"] == f"/api/targets/{made['id']}"
    assert made["tags"] == ["a", "b"]
    assert (made["group"], made["owner"], made["parents"]) == ("front", "ada", [parent.pk])
    assert made["state"]["status"] == "new"
    path = answer["Location"]
    assert api("GET", path).json() == made

    before = Target.objects.get(pk=made["id"]).updated_at
    changed = api("PATCH", path, {"interval_s": 5, "tags": [], "group": None}).json()
    assert (changed["interval_s"], changed["tags"], changed["group"]) == (5.0, [], None)
    assert changed["owner"] == "ada"
    assert Target.objects.get(pk=made["id"]).updated_at > before

    assert api("DELETE", path).status_code == 204
    refusal(api("GET", path), 404, "not_found")


def test_secrets_go_in_and_never_come_out(api):
    made = api(
        "POST",
        "/api/targets",
        {**WEB, "options": {"username": "u", "password": "hunter2", "method": "HEAD"}},
    )
    assert made.status_code == 201, made.content
    assert b"hunter2" not in made.content
    assert made.json()["secrets"] == ["password"]
    path = made["Location"]
    for answer in (api("GET", path), api("GET", "/api/targets")):
        assert b"hunter2" not in answer.content
    # Not given: kept. Given as null: gone. A reference is no secret, and stays as well.
    api("PATCH", path, {"options": {"username": "v"}})
    row = Target.objects.get(pk=made.json()["id"])
    assert plain_options(row) == {"username": "v", "password": "hunter2"}
    assert api("PATCH", path, {"options": {"password": None}}).json()["secrets"] == []
    row.refresh_from_db()
    assert "password" not in plain_options(row)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "gopher"}, "kind"),
        ({"address": "nonsense"}, "address"),
        ({"interval_s": 0}, "interval_s"),
        ({"interval_s": "often"}, "interval_s"),
        ({"severity": "huge"}, "severity"),
        ({"options": {"warp": 9}}, "options"),
        ({"options": [1]}, "options"),
        ({"group": "none"}, "group"),
        ({"owner": "nobody"}, "owner"),
        ({"parents": [99_999]}, "parents"),
        ({"parents": ["x"]}, "parents"),
        ({"tags": ["x" * 64]}, "tags"),
        ({"tags": "x"}, "tags"),
        ({"timeout_s": 100, "interval_s": 1}, "timeout_s"),
        ({"colour": "red"}, "colour"),
        ({"name": ""}, "name"),
        ({"slo_percent": 100}, "slo_percent"),
    ],
)
def test_what_is_wrong_is_named(api, fields, named):
    body = refusal(api("POST", "/api/targets", {**WEB, **fields}), 400, "invalid")
    assert named in body["errors"]
    assert not Target.objects.exists()


def test_a_name_is_taken_once(api):
    assert api("POST", "/api/targets", WEB).status_code == 201
    assert "name" in refusal(api("POST", "/api/targets", WEB), 400, "invalid")["errors"]


def test_no_target_is_its_own_parent(api):
    (target,) = make(1)
    body = refusal(
        api("PATCH", f"/api/targets/{target.pk}", {"parents": [target.pk]}), 400, "invalid"
    )
    assert "parents" in body["errors"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_request"),
        (b"", 400, "invalid"),
        (b"[1]", 400, "bad_request"),
        (b'{"name":"\\u0000"}', 400, "bad_request"),
        (b"[" * 1000 + b"]" * 1000, 400, "bad_request"),
        (b'{"name":"' + b"x" * MAX_BODY_BYTES + b'"}', 413, "too_large"),
    ],
)
def test_bodies_that_are_none(api, body, status, code):
    refusal(api("POST", "/api/targets", body), status, code)


def test_a_body_of_unknown_length_is_not_read(api):
    answer = api(
        "POST", "/api/targets", b"", **{"Transfer-Encoding": "chunked", "Content-Length": ""}
    )
    refusal(answer, 411, "length_required")


class TestKeys:
    def test_reading_needs_read_and_writing_targets(self, api, api_with):
        (target,) = make(1)
        path = f"/api/targets/{target.pk}"
        reader, writer, sender = api_with("read"), api_with("targets"), api_with("logs")
        refusal(api("GET", path), 401, "key_required")
        assert reader("GET", path).status_code == 200
        refusal(reader("PATCH", path, {"paused": True}), 403, "missing_scope")
        refusal(reader("DELETE", path), 403, "missing_scope")
        refusal(reader("PATCH", "/api/targets?all=true", {"paused": True}), 403, "missing_scope")
        assert writer("PATCH", path, {"paused": True}).status_code == 200
        refusal(writer("GET", path), 403, "missing_scope")
        refusal(sender("GET", path), 403, "missing_scope")
        assert api_with("admin")("GET", path).status_code == 200
        assert api_with("admin")("DELETE", path).status_code == 204

    def test_a_page_of_another_site_is_not_this_machine(self, api):
        answer = api("GET", "/api/targets", Origin="https://evil.example")
        refusal(answer, 403, "cross_site")


class TestLists:
    def test_pages_go_on_by_key(self, api):
        made = make(5)
        path, seen = "/api/targets?limit=2", []
        while path:
            body = api("GET", path).json()
            assert len(body["results"]) <= 2
            seen += [one["id"] for one in body["results"]]
            path = body["next"]
        assert seen == [target.pk for target in made]

    def test_filters(self, api):
        one, two, three = make(3)
        TargetState.objects.create(target=one, status="down")
        TargetState.objects.create(target=two, status="new")
        two.tags.set([Tag.objects.create(name="x"), Tag.objects.create(name="y")])
        three.tags.set([Tag.objects.get(name="x")])
        three.group = TargetGroup.objects.create(name="g")
        three.paused = True
        three.save()

        def found(query: str) -> list[str]:
            answer = api("GET", f"/api/targets?{query}")
            assert answer.status_code == 200, answer.content
            return [row["name"] for row in answer.json()["results"]]

        assert found("status=down") == ["t0"]
        assert found("status=new") == ["t1", "t2"]
        assert found("tag=x") == ["t1", "t2"]
        assert found("tag=x&tag=y") == ["t1"]
        assert found("group=g") == ["t2"]
        assert found("paused=true") == ["t2"]
        assert found("kind=http") == []
        assert found("search=T1") == ["t1"]
        assert found(f"id={one.pk},{three.pk}") == ["t0", "t2"]

    @pytest.mark.parametrize(
        "query",
        ["limit=0", "limit=501", "limit=x", "limit=²", "after=-1", "after=99999999999999999999",
         "status=sad", "paused=1", "id=a", "id=" + "1," * 1001],
    )  # fmt: skip
    def test_wrong_questions(self, api, query):
        refusal(api("GET", f"/api/targets?{query}"), 400, "invalid")

    def test_nul_in_a_question(self, api):
        refusal(api("GET", "/api/targets?tag=%00"), 400, "bad_request")

    def test_the_number_of_queries_does_not_grow(self, api, django_assert_max_num_queries):
        for target in make(50):
            target.tags.add(Tag.objects.get_or_create(name="x")[0])
        with django_assert_max_num_queries(10):
            assert len(api("GET", "/api/targets").json()["results"]) == 50


class TestMany:
    def test_a_filter_chooses_and_all_are_changed(self, api):
        targets = make(4)
        tag = Tag.objects.create(name="old")
        for target in targets[:3]:
            target.tags.add(tag)
        long_ago = timezone.now() - timedelta(days=1)
        Target.objects.update(updated_at=long_ago)
        answer = api(
            "PATCH",
            "/api/targets?tag=old",
            {"interval_s": 7, "paused": True, "add_tags": ["new"], "remove_tags": ["old"]},
        )
        assert answer.json() == {"updated": 3}
        for target in Target.objects.all():
            changed = target.name != "t3"
            assert (target.interval_s == 7) == changed
            assert (target.updated_at > long_ago) == changed
            assert [one.name for one in target.tags.all()] == (["new"] if changed else [])

    def test_everything_only_when_said_so(self, api):
        make(2)
        body = refusal(api("PATCH", "/api/targets", {"paused": True}), 400, "invalid")
        assert "all" in body["errors"]
        assert api("PATCH", "/api/targets?all=true", {"paused": True}).json() == {"updated": 2}

    def test_all_or_none(self, api):
        make(1)
        Target.objects.create(name="slow", kind="tcp", address="a:1", timeout_s=60)
        body = refusal(api("PATCH", "/api/targets?all=true", {"interval_s": 2}), 400, "invalid")
        assert "slow" in str(body["errors"]["timeout_s"])
        assert not Target.objects.filter(interval_s=2).exists()

    @pytest.mark.parametrize(
        "fields", [{}, {"name": "x"}, {"interval_s": 0.5}, {"group": "none"}, {"address": "a"}]
    )
    def test_what_cannot_be_set_on_many(self, api, fields):
        make(1)
        refusal(api("PATCH", "/api/targets?all=true", fields), 400, "invalid")
