"""The benchmark harness: its arithmetic, its generators, and one small run of what it measures."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

from benchmarks import cli
from benchmarks.catalogue import CATALOGUE, SCENARIOS
from benchmarks.figure import Figure
from benchmarks.load import GeneratorProcess, run_load
from benchmarks.plan import Plan
from benchmarks.rows import INVALID, POISON, bodies
from benchmarks.scenarios import http_sqlite, single
from tests.commands.recording import Answer, RecordingServer, accept
from tests.servers.collector import ROOT


def figure(**options):
    return Figure(name="f", unit="u", goal=0.7, baseline_name="b", **options)


def plan(**options):
    return Plan(
        quick=True,
        repetitions=1,
        records=20_000,
        single_requests=200,
        say=lambda _: None,
        **options,
    )


def test_the_ratio_is_the_median_of_the_repetitions_ratios():
    """One repetition in which the whole machine was slow does not count against either."""
    measured = figure()
    for value, baseline in ((80, 100), (8, 10), (50, 100)):
        measured.add(value, baseline)
    shown = measured.as_json()
    assert shown["ratio"] == 0.8
    assert shown["ratio_spread"] == [0.5, 0.8]
    assert shown["passed"]


@pytest.mark.parametrize(
    ("value", "options", "passed"),
    [
        (69, {}, False),
        (71, {}, True),
        (69, {"or_value": 60.0}, True),
        (69, {"at_most": True}, True),
        (71, {"at_most": True}, False),
    ],
)
def test_goals(value, options, passed):
    measured = figure(**options)
    measured.add(value, 100)
    assert measured.passed is passed


def test_records_are_about_190_bytes_and_bodies_the_same_in_every_run():
    made = bodies(1000, count=2)
    lines = [line for body in made for line in body.split(b"\n")]
    assert len(lines) == 2000
    assert 170 <= sum(map(len, lines)) / len(lines) <= 210
    assert all(json.loads(line)["level"] for line in lines)
    assert bodies(10) == bodies(10)


@pytest.mark.parametrize("bad", [INVALID, POISON])
def test_one_record_in_a_thousand_is_bad_and_its_neighbours_are_the_same(bad):
    clean = b"\n".join(bodies(1000, count=3)).split(b"\n")
    mixed = b"\n".join(bodies(1000, count=3, bad=bad)).split(b"\n")
    differ = [n for n, (one, other) in enumerate(zip(clean, mixed, strict=True)) if one != other]
    assert differ == [500, 1500, 2500]
    for n in differ:
        assert mixed[n].startswith(bad)
        assert json.loads(mixed[n])["message"] == json.loads(clean[n])["message"]
    assert b"\n".join(bodies(1, count=2000, bad=bad)).count(bad) == 2


def test_a_generator_process_sends_what_is_bad_when_it_is_told_to():
    with RecordingServer() as server:
        run_load(url=server.url, records=1000, clients=1, batch=1000, bad=POISON.decode())
        assert [received.body.count(POISON) for received in server.requests] == [1]


def test_a_generator_process_sends_what_was_made_before():
    with RecordingServer() as server:
        result = run_load(url=server.url, records=60, clients=2, batch=10)
        assert sorted(r.body for r in server.requests) == sorted(bodies(10)[:6])
    assert result["records_accepted"] == 60
    assert result["finished"] > result["started"]


def test_an_impatient_generator_does_not_wait_as_long_as_it_was_told():
    def answer(received):
        return (
            Answer(429, headers={"Retry-After": "60"}) if received.number < 3 else accept(received)
        )

    with RecordingServer(answer) as server:
        result = run_load(url=server.url, records=1, clients=1, retry_pause_s=0.001)
    assert result["records_accepted"] == 1
    assert result["retries"] == {"429": 3}


def test_a_generator_is_stopped_with_its_figures():
    with (
        RecordingServer() as server,
        GeneratorProcess(url=server.url, records=10**7, clients=1) as generator,
    ):
        generator.go()
        generator.stop()
        assert generator.result()["interrupted"]


def test_a_table_is_printed_and_json_goes_where_it_is_asked_for(capsys, monkeypatch, tmp_path):
    class Good:
        @staticmethod
        def measure(plan):
            good = figure(notes={"profile": "long"})
            good.add(1, 2)
            return [good]

    monkeypatch.setattr(importlib, "import_module", {"good": Good}.get)
    monkeypatch.setattr(cli, "SCENARIOS", {"good": "good"})
    out = tmp_path / "report.json"
    assert cli.main(["good", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "0.50" in said.out
    assert "{" not in said.out
    assert str(out) in said.err
    report = json.loads(out.read_text())
    assert report["figures"][0]["notes"] == {"profile": "long"}
    assert cli.main(["good", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == report["figures"]


@pytest.mark.parametrize("command", [["-m", "benchmarks"], ["manage.py", "benchmark"]])
def test_the_help_says_what_each_name_measures(command):
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    for name, entry in CATALOGUE.items():
        (line,) = [one for one in lines if one.split()[:1] == [name]]
        assert line.endswith(entry.about)
        assert ("*" in line) == entry.drawn
        assert len(line) <= 100


@pytest.mark.parametrize("name", CATALOGUE)
def test_what_is_drawn_says_so(name):
    """Which are drawn is told without importing them all."""
    module = importlib.import_module(SCENARIOS[name])
    assert ("Comparison" in vars(module)) == CATALOGUE[name].drawn


def test_unknown_figures_are_named(capsys):
    assert cli.main(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_figure_that_fails_leaves_the_others(capsys, monkeypatch):
    class Good:
        @staticmethod
        def measure(plan):
            good = figure()
            good.add(1, 2)
            return [good]

    class Bad:
        @staticmethod
        def measure(plan):
            raise RuntimeError("no server")

    monkeypatch.setattr(importlib, "import_module", {"bad": Bad, "good": Good}.get)
    monkeypatch.setattr(cli, "SCENARIOS", {"bad": "bad", "good": "good"})
    assert cli.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failures"] == {"bad": "RuntimeError: no server"}
    assert report["figures"][0]["ratio"] == 0.5
    assert cli.main(["good", "--json"]) == 0
    assert cli.main(["good", "--json", "--check"]) == 1


@pytest.mark.parametrize("command", [["-m", "benchmarks"], ["manage.py", "benchmark"]])
def test_the_engine_alone_from_the_command_line(command):
    done = subprocess.run(
        [sys.executable, *command, "batcher", "--records", "10000", "--repeat", "1", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["figures"]) > 2
    assert {each["unit"] for each in report["figures"]} == {"records/s"}
    assert all(each["value"] > 0 for each in report["figures"])


@pytest.mark.server
@pytest.mark.parametrize("scenario", [http_sqlite, pytest.param(single, marks=pytest.mark.long)])
def test_a_small_run_measures_and_checks_what_was_stored(scenario):
    (measured,) = scenario.measure(plan(batch=1000, clients=2))
    assert measured.value > 0
    assert measured.ratio > 0
