"""`manage.py loadtest`: options, output, exit codes, and the whole way on the real server."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from ingest.loadtest.verify import searched
from ingest.wire.counters import read_increment
from ingest.wire.kinds import COUNTERS
from tests.commands.recording import Answer, Drop, RecordingServer, accept, accepted
from tests.ingest.bodies import take
from tests.servers.collector import ROOT


def loadtest(*arguments):
    """Exit status, standard output."""
    out = StringIO()
    try:
        call_command("loadtest", *arguments, stdout=out)
    except SystemExit as ended:
        return ended.code, out.getvalue()
    return 0, out.getvalue()


def test_the_figures_are_printed():
    with RecordingServer() as server:
        status, out = loadtest("40", "4", "--url", server.url, "--batch", "10")
    assert status == 0
    for word in ("throughput", "p50", "p95", "p99", "202: 4", "40 accepted"):
        assert word in out


def test_the_server_is_this_installations_own(settings):
    with RecordingServer() as server:
        own = dataclasses.replace(settings.COLLECTOR.server, host="0.0.0.0", port=server.port)
        settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, server=own)
        status, out = loadtest("1", "1", "--json")
    assert status == 0
    assert json.loads(out)["url"] == f"http://127.0.0.1:{server.port}/logs"


def test_a_run_that_was_ended_says_so_in_one_line():
    def answer(received):
        return accept(received) if received.number == 0 else Drop()

    with RecordingServer(answer) as server:
        status, out = loadtest("1000", "1", "--url", server.url, "--retry-for", "0.2")
    said = " ".join(out.split())
    assert status == 1
    assert said.count("the run was ended: no answer came for 0.2 s (--retry-for)") == 1
    assert "1 accepted, 0 rejected, 1 not accepted, 998 not sent" in said


def test_json_is_one_object():
    with RecordingServer() as server:
        status, out = loadtest("40", "4", "--url", server.url, "--json")
    result = json.loads(out)
    assert status == 0
    assert result["records_accepted"] == 40
    assert result["url"] == f"{server.url}/logs"


def test_clients_have_a_default_and_numbers_may_have_underscores():
    with RecordingServer() as server:
        assert loadtest("1_000", "--batch", "100", "--url", server.url)[0] == 0
        assert sum(len(request.records) for request in server.requests) == 1000


def test_records_that_were_not_accepted_fail_it():
    with RecordingServer(lambda r: accepted(1, rejected={0: "no"})) as server:
        status, out = loadtest("3", "1", "--url", server.url)
    assert status == 1
    assert "not accepted: bad: no" in out


def test_a_refusal_is_waited_out_for_real():
    def answer(received):
        return (
            Answer(429, headers={"Retry-After": "0"}) if received.number == 0 else accept(received)
        )

    with RecordingServer(answer) as server:
        status, out = loadtest("3", "1", "--url", server.url, "--json")
    assert status == 0
    assert json.loads(out)["retries"] == {"429": 1}


def test_the_key_is_taken_from_the_environment_and_not_shown(monkeypatch):
    monkeypatch.setenv("COLLECTOR_API_KEY", "ck_secret")
    with RecordingServer() as server:
        _, out = loadtest("1", "1", "--url", server.url)
        assert server.requests[0].headers["authorization"] == "Bearer ck_secret"
    assert "ck_secret" not in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["0", "1"], "not between 1 and"),
        (["10", "5000"], "not between 1 and 1,000"),
        (["ten", "1"], "not a whole number"),
        (["1", "1", "--rate", "nan"], "not between"),
        (["1", "1", "--path", "/metrics"], "invalid choice"),
        (["1", "1", "--url", "http://192.0.2.1"], "--allow-remote"),
        (["1", "1", "--url", "https://127.0.0.1"], "must look like http://"),
    ],
)
def test_what_cannot_be_is_said(arguments, complaint):
    with pytest.raises(CommandError, match=complaint):
        call_command("loadtest", *arguments)


@pytest.mark.django_db
def test_a_server_that_acknowledges_and_stores_nothing_is_found_out():
    with RecordingServer() as server:
        status, out = loadtest(
            "20", "2", "--url", server.url, "--verify", "--verify-timeout", "0", "--json"
        )
    assert status == 1
    verdict = json.loads(out)["verify"]
    assert verdict["missing"] == 20
    assert not verdict["passed"]
    assert str(connections["records"].settings_dict["NAME"]) in verdict["database"]
    assert "COLLECTOR_DATABASE_URL" in verdict["hint"]


@pytest.mark.django_db
def test_where_it_looked_and_what_to_check_are_printed():
    with RecordingServer() as server:
        arguments = ("20", "2", "--url", server.url, "--verify", "--verify-timeout", "0")
        _, out = loadtest(*arguments)
    said = " ".join(out.split())
    assert f"looked in {searched()}" in said
    assert "none of the 20 was found: the server may use another database" in said


# -- the real thing -----------------------------------------------------------------------------


def run_command(server, *arguments, **options):
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        **options,
    )


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_ten_thousand_records_from_fifty_clients_are_stored_once_each(
    collector_server, request, tmp_path, database
):
    environ = {"COLLECTOR_DATABASE_URL": ""}
    if database == "postgresql":
        environ["COLLECTOR_DATABASE_URL"] = request.getfixturevalue("postgres_dsn")
    server = collector_server(environ=environ)
    for arguments in (["10000", "50"], ["50000", "8", "--batch", "1000"]):
        done = run_command(
            server, "loadtest", *arguments, "--verify", "--json", "--url", server.url
        )
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout)
        assert result["verify"]["passed"]
        assert result["verify"]["found"] == int(arguments[0])
    for path in ("/health", "/event", "/counters") if database == "postgresql" else ("/counters",):
        done = run_command(
            server, "loadtest", "500", "5", "--path", path, "--verify", "--json",
            "--url", server.url,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_increments_are_what_the_server_takes():
    with RecordingServer() as server:
        status, _ = loadtest("30", "1", "--url", server.url, "--path", "/counters", "--batch", "30")
    assert status == 0
    (request,) = server.requests
    assert request.path == "/counters"
    decoded = take(request.body.decode(), kind=COUNTERS)
    assert not decoded.rejections
    read = [read_increment(record.payload) for record in decoded.records["default"]]
    assert len({counter for counter, _ in read}) == 10
    assert {amount for _, amount in read} == {1}


def test_the_script_loads_a_running_server():
    with RecordingServer() as server:
        done = subprocess.run(
            ["scripts/load_test.sh", "100", "5", "--json"],
            cwd=ROOT,
            env={**os.environ, "URL": server.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["records_accepted"] == 100


@pytest.mark.parametrize("tool", ["wrk", "hey"])
def test_a_missing_tool_is_named_with_its_package(tool, tmp_path):
    for needed in ("sh", "dirname"):
        os.symlink(f"/bin/{needed}", tmp_path / needed)
    done = subprocess.run(
        ["/bin/sh", f"scripts/{tool}_logs.sh"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 127
    assert f"apt-get install {tool}" in done.stderr


def test_control_c_prints_what_was_sent_so_far():
    process: list[subprocess.Popen[str]] = []

    def answer(received):
        if received.number == 5:
            process[0].send_signal(signal.SIGINT)
        return accept(received)

    with RecordingServer(answer) as server:
        process.append(
            subprocess.Popen(
                [sys.executable, "manage.py", "loadtest", "1000000", "1", "--json",
                 "--url", server.url],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        out, err = process[0].communicate(timeout=60)
    assert process[0].returncode == 1, err
    result = json.loads(out)
    assert result["interrupted"]
    assert result["records_accepted"] == len(server.requests) < 1_000_000
