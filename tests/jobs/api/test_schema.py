"""What `/api/schema` says in words of each operation."""

from __future__ import annotations

import pytest


@pytest.fixture
def paths(client, db):
    return client.get("/api/schema?format=json").json()["paths"]


@pytest.mark.parametrize(
    ("path", "method", "words"),
    [
        ("/jobs", "get", ["`next`", "`scheduled`", "scope `read` or `jobs`"]),
        ("/jobs", "post", ["A 202 promises", "`Idempotency-Key`", "A 429 says", "`dead`"]),
        ("/jobs/{id}", "get", ["`events`", "forgotten"]),
        ("/jobs/{id}/cancel", "post", ["not undone", "Asked again"]),
        ("/jobs/{id}/retry", "post", ["keep their results", "It needs room"]),
    ],
)
def test_each_operation_says_what_it_promises(paths, path, method, words):
    description = paths[path][method]["description"]
    assert [one for one in words if one not in description] == []


def test_each_operation_has_words_of_its_own(paths):
    told = [
        one["description"]
        for path, of in paths.items()
        if path.startswith("/jobs")
        for one in of.values()
    ]
    assert len(set(told)) == len(told) == 5
