"""Asking processes, and the commands that do: drain, ledger; and API keys from a shell."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from control.auth.keys import keyring
from control.management.commands import drain
from control.models import ApiKey, Process, ProcessRequest
from control.processes.asking import Answer, ask, has_pipelines, living
from control.processes.ledgers import table

pytestmark = pytest.mark.django_db

ROW: dict[str, Any] = {
    "sink": "database",
    "tenant": "default",
    "accepted": 1_000,
    "redriven": 0,
    "stored": 990,
    "already_stored": 1,
    "dead_lettered": 2,
    "dropped": {"poison": 3, "none": 0},
    "in_flight": 4,
    "imbalance": 0,
}


def a_process(*, ledger: list[dict[str, Any]] | None = None, **changes: Any) -> Process:
    now = datetime.now(UTC)
    values = {
        "role": "server",
        "host": "here",
        "pid": 7,
        "started_at": now,
        "last_seen_at": now,
        "ledger": [ROW] if ledger is None else ledger,
        **changes,
    }
    return Process.objects.create(**values)


class Replier:
    """Answers requests whenever somebody waits: the processes of these tests."""

    def __init__(self) -> None:
        self.answers: dict[Any, Any] = {}
        self.now = 0.0
        self.waits = 0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits += 1
        self.now += seconds
        for request in ProcessRequest.objects.filter(finished_at=None):
            answer = self.answers.get(request.process_id)
            if answer is not None:
                request.result = answer(request) if callable(answer) else answer
                request.claimed_at = request.finished_at = datetime.now(UTC)
                request.save()


@pytest.fixture
def replier(monkeypatch: pytest.MonkeyPatch) -> Replier:
    replier = Replier()
    by_itself = {"wait": replier.wait, "monotonic": replier.monotonic}
    monkeypatch.setattr(ask, "__kwdefaults__", {**(ask.__kwdefaults__ or {}), **by_itself})
    return replier


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run() -> Run:
    def call(*args: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command(*args, stdout=out, stderr=err)
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
        return 0, out.getvalue(), err.getvalue()

    return call


# --- asking ----------------------------------------------------------------------------------


def test_the_living_are_those_that_beat() -> None:
    alive = a_process()
    a_process(last_seen_at=datetime.now(UTC) - timedelta(minutes=1))
    a_process(stopped_at=datetime.now(UTC))
    assert living() == [alive]


def test_a_process_without_pipelines_has_nothing_to_drain() -> None:
    old = datetime.now(UTC) - timedelta(minutes=1)
    assert not has_pipelines(a_process(ledger=[], started_at=old))
    assert not has_pipelines(a_process(ledger=[], role="checker"))
    assert has_pipelines(a_process(ledger=[])), "it began a moment ago"
    assert has_pipelines(a_process())
    assert has_pipelines(a_process(ledger=[], stats={"pipelines": [{"key": "k"}]}))


def test_answers_come_as_they_are_given_and_the_rest_at_the_end(replier: Replier) -> None:
    quick, mute = a_process(), a_process()
    replier.answers[quick.pk] = {"settled": True}
    answers = list(ask([quick, mute], "drain", timeout_s=3))
    assert [(a.process, a.error) for a in answers] == [
        (quick, ""),
        (mute, "did not answer within 3 s"),
    ]
    # Nobody is left to begin with it once whoever asked has gone.
    assert not ProcessRequest.objects.filter(process=mute).exists()


def test_what_is_told_goes_before_what_was_written() -> None:
    process = a_process()
    assert Answer(process=process, result={"ledger": []}).ledger == []
    assert Answer(process=process, result={}).ledger == [ROW]


# --- drain -----------------------------------------------------------------------------------


def test_a_drain_prints_the_ledgers_and_succeeds(replier: Replier, run: Run) -> None:
    process = a_process()
    settled = {**ROW, "stored": 994, "in_flight": 0}

    def answer(request: ProcessRequest) -> dict[str, Any]:
        assert (request.kind, request.args) == ("drain", {"deadline_s": 12.0})
        return {"settled": True, "ledger": [settled]}

    replier.answers[process.pk] = answer
    code, out, err = run("drain", "--timeout", "12")
    assert (code, err) == (0, "")
    assert "994" in out
    assert "poison=3" in out
    assert "every ledger balances" in out


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (None, "did not answer within"),
        ({"error": "RuntimeError: broken"}, "RuntimeError: broken"),
        ({"settled": True, "ledger": [{**ROW, "imbalance": 5}]}, "out of balance by 5"),
        ({"settled": True, "ledger": [{**ROW, "imbalance": -5}]}, "out of balance by 5"),
        ({"settled": False, "ledger": [ROW]}, "4 records are in flight"),
    ],
)
def test_a_drain_that_failed_says_so_and_exits_with_1(
    replier: Replier, run: Run, answer: Any, complaint: str
) -> None:
    well, ill = a_process(), a_process()
    replier.answers[well.pk] = {"settled": True}
    replier.answers[ill.pk] = answer
    code, _, err = run("drain", "--timeout", "1")
    assert code == 1
    assert complaint in err
    code, out, _ = run("drain", "--timeout", "1", "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (1, False)
    assert complaint in document["failures"][0]
    assert [p["id"] for p in document["processes"]] == [str(well.pk), str(ill.pk)]


def test_two_imbalances_that_cancel_out_are_two() -> None:
    rows = [{**ROW, "imbalance": 5}, {**ROW, "imbalance": -5}]
    answer = Answer(process=a_process(), result={"settled": True, "ledger": rows})
    assert "by 10" in drain.failures_of(answer)[0]


def test_with_no_process_there_is_nothing_to_drain(run: Run) -> None:
    code, out, _ = run("drain")
    assert code == 0
    assert "nothing to drain" in out
    document = json.loads(run("drain", "--json")[1])
    assert (document["ok"], document["failures"], document["processes"]) == (True, [], [])
    assert document["enqueued"] == document["left_in_log"] == 0


def test_what_is_left_in_the_log_is_no_failure_and_said(replier: Replier, run: Run) -> None:
    process = a_process()
    left = {**ROW, "in_flight": 0, "left_in_log": 4}
    replier.answers[process.pk] = {"settled": False, "ledger": [left]}
    code, out, err = run("drain", "--timeout", "1")
    assert (code, err) == (0, "")
    assert "4 records stay in the log for the next start" in out
    assert "left_in_log 4: balanced" in out


def test_a_closed_ledger_that_does_not_add_up_fails(replier: Replier, run: Run) -> None:
    process = a_process()
    lost = {**ROW, "in_flight": 0, "left_in_log": 1}
    replier.answers[process.pk] = {"settled": True, "ledger": [lost]}
    code, out, err = run("drain", "--timeout", "1")
    assert code == 1
    assert "out of balance by 3" in err
    assert "OUT OF BALANCE BY 3" in out


# --- ledger ----------------------------------------------------------------------------------


def test_the_ledger_asks_the_living_and_shows_the_dead(replier: Replier, run: Run) -> None:
    alive = a_process()
    dead = a_process(stopped_at=datetime.now(UTC), exit_reason="stopped")
    a_process(ledger=[], stopped_at=datetime.now(UTC))
    more = {**ROW, "accepted": 5_555, "stored": ROW["stored"] + 5_555 - ROW["accepted"]}
    replier.answers[alive.pk] = {"ledger": [more]}
    code, out, _ = run("ledger", "--json")
    processes = {p["id"]: p for p in json.loads(out)["processes"]}
    assert code == 0
    assert processes.keys() == {str(alive.pk), str(dead.pk)}
    assert (processes[str(alive.pk)]["fresh"], processes[str(dead.pk)]["fresh"]) == (True, False)
    assert processes[str(alive.pk)]["ledger"][0]["accepted"] == 5_555
    assert len(json.loads(run("ledger", "--json", "--live")[1])["processes"]) == 1


def test_a_process_that_does_not_answer_is_shown_as_of_its_last_beat(
    replier: Replier, run: Run
) -> None:
    a_process()
    code, out, err = run("ledger", "--timeout", "1")
    assert code == 0
    assert "1,000" in out
    assert "did not answer within 1 s" in err


def test_the_table_is_inert() -> None:
    text = table([(a_process(), [{**ROW, "sink": "\x1b[2Jdata\nbase"}])])
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert table([]) == "No process has a ledger."


# --- API keys --------------------------------------------------------------------------------


def test_a_key_from_the_shell(run: Run) -> None:
    code, out, err = run(
        "apikey", "create", "shop", "--tenant", "acme", "--scope", "logs", "--expires-days", "1"
    )
    assert code == 0
    token = out.strip()
    principal = keyring().authenticate(token)
    assert principal is not None
    assert (principal.tenant, principal.scopes) == ("acme", frozenset({"logs"}))
    assert token not in err
    prefix = ApiKey.objects.get().prefix
    listed = run("apikey", "list")[1]
    assert prefix in listed
    assert token not in listed
    assert token.rpartition("_")[2] not in run("apikey", "list", "--json")[1]
    assert run("apikey", "revoke", prefix)[0] == 0
    assert keyring().authenticate(token) is None
    assert "revoked" in run("apikey", "list")[1]


def test_a_key_as_json(run: Run) -> None:
    made = json.loads(run("apikey", "create", "x", "--json", "--any-tenant")[1])
    principal = keyring().authenticate(made["token"])
    assert principal is not None
    assert principal.any_tenant
    assert made["scopes"] == ["logs", "health", "events", "counters"]


@pytest.mark.parametrize(
    "args",
    [
        ("create", "x", "--tenant", "No Good"),
        ("create", "x", "--expires-days", "1e300"),
        ("revoke", "unknown"),
    ],
)
def test_mistakes_are_answered_and_nothing_is_made(run: Run, args: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run("apikey", *args)
    assert not ApiKey.objects.exists()
