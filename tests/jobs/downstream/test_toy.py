"""The toy: what it does to its callers, what it remembers, and its command as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
from django.core.management import CommandError, call_command

from jobs.downstream.calls import FailedCall
from jobs.toy.behaviour import FAIL, HANG, OK, Behaviour
from jobs.toy.journal import Journal
from tests.jobs.downstream.stand import spec


def outcomes(behaviour: Behaviour, calls: int = 2000) -> list[str]:
    return [behaviour.outcome(f"job-{n}:step", 1) for n in range(calls)]


def test_the_same_seed_fails_the_same_calls():
    one, same, other = (Behaviour(fail_rate=0.3, seed=seed) for seed in (7, 7, 8))
    assert outcomes(one) == outcomes(same)
    assert outcomes(one) != outcomes(other)


def test_rates_are_kept():
    found = outcomes(Behaviour(fail_rate=0.3, hang_rate=0.1))
    assert found.count(FAIL) / len(found) == pytest.approx(0.3, abs=0.05)
    assert found.count(HANG) / len(found) == pytest.approx(0.1, abs=0.05)
    assert set(outcomes(Behaviour())) == {OK}
    assert set(outcomes(Behaviour(fail_rate=1.0))) == {FAIL}


def test_another_try_of_a_call_may_end_otherwise():
    behaviour = Behaviour(fail_rate=0.5)
    assert {behaviour.outcome("t", nth) for nth in range(20)} == {OK, FAIL}


def test_latency_lies_between_its_bounds():
    behaviour = Behaviour(latency_s=(0.1, 0.2))
    assert all(0.1 <= behaviour.takes_s("t", nth) <= 0.2 for nth in range(100))
    assert Behaviour(latency_s=(0.1, 0.1)).takes_s("t", 1) == 0.1


def test_it_is_down_for_a_time():
    behaviour = Behaviour(down_after_s=5, down_for_s=30)
    assert [behaviour.is_down(s) for s in (0, 4.9, 5, 34.9, 35)] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert not Behaviour().is_down(0)


def test_it_counts_what_was_done_and_what_was_done_again(caller, make_toy):
    toy = make_toy(behaviour=Behaviour(fail_rate=0.0, retry_after_s=4))
    for token in ("a:s", "a:s", "b:s"):
        caller.call(spec(toy.url), "/x", headers={"Idempotency-Key": token})
    toy.behaviour = Behaviour(fail_rate=1.0, retry_after_s=4)
    with pytest.raises(FailedCall) as raised:
        caller.call(spec(toy.url), "/x", headers={"Idempotency-Key": "c:s"})
    assert raised.value.retry_after_s == 4
    counts = caller.call(spec(toy.url), "/counts", method="GET", body=None).body
    assert counts == {
        "calls": 4, "tokens": 3, "done": 2, "outcomes": {"ok": 3, "fail": 1},
        "done_again": {"a:s": 2}, "done_again_count": 1,
    }  # fmt: skip
    tokens = caller.call(spec(toy.url), "/tokens", method="GET", body=None).body
    assert tokens["a:s"] == {"calls": 2, "done": 2}
    assert tokens["c:s"] == {"calls": 1, "done": 0}
    lines = caller.call(spec(toy.url), "/journal?limit=2", method="GET", body=None).body
    assert [line["outcome"] for line in lines] == ["ok", "fail"]


def test_down_it_resets_and_counts_nothing_as_done(caller, toy):
    caller.call(spec(toy.url), "/control/down?for_s=60")
    with pytest.raises(FailedCall, match="broke the call off"):
        caller.call(spec(toy.url), "/x")
    caller.call(spec(toy.url), "/control/up")
    assert caller.call(spec(toy.url), "/x").status == 200
    assert toy.journal.counts()["outcomes"] == {"down": 1, "ok": 1}


def test_its_log_is_json_lines(tmp_path):
    journal = Journal(file=tmp_path / "calls.log")
    journal.ended(at=1.5, token="a:s", path="/x", nth=1, outcome="ok")
    journal.close()
    (line,) = (tmp_path / "calls.log").read_text().splitlines()
    assert json.loads(line) == {
        "at": 1.5, "token": "a:s", "path": "/x", "nth": 1, "outcome": "ok",
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ["--fail-rate", "1.5"],
        ["--fail-rate", "nan"],
        ["--fail-rate", "0.6", "--hang-rate", "0.6"],
        ["--latency", "2-1"],
        ["--latency", "quick"],
        ["--port", "99999"],
        ["--log", "/nowhere/at/all"],
    ],
    ids=lambda options: " ".join(options),
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(CommandError):
        call_command("toy_downstream", *options)


def test_as_a_process_it_says_where_it_is_and_ends_with_its_counts(tmp_path):
    command = (sys.executable, "manage.py", "toy_downstream", "--json", "--fail-rate", "1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        asked = urllib.request.Request(url + "/x", headers={"Idempotency-Key": "a"})
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(asked, timeout=30)
        process.send_signal(signal.SIGTERM)
        counts = json.loads(process.stdout.readline())
    assert process.returncode == 0
    assert counts["outcomes"] == {"fail": 1}
