"""`manage.py ship`: options, signals, and the whole way on the real server."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from tests.commands.recording import Answer, RecordingServer, accept, accepted
from tests.servers.collector import ROOT


def ship(*arguments):
    out = StringIO()
    status: object = 0
    try:
        call_command("ship", *map(str, arguments), "--json", stdout=out)
    except SystemExit as ended:
        status = ended.code
    return status, json.loads(out.getvalue())


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("one\ntwo\nthree\n")
    return path


@pytest.fixture
def state(tmp_path):
    return ("--state-dir", tmp_path / "ship")


def test_lines_are_sent_as_text_once(log, state):
    with RecordingServer() as server:
        status, counts = ship(log, "--url", server.url, *state)
        assert status == 0
        assert counts["records_accepted"] == 3
        request = server.requests[0]
        assert request.headers["content-type"] == "text/plain; charset=utf-8"
        assert request.body == b"one\ntwo\nthree"
        assert ship(log, "--url", server.url, *state)[1]["requests"] == 0
        assert ship(log, "--url", server.url, *state, "--from-start")[1]["records_accepted"] == 3


def test_a_service_makes_records_of_lines(log, state):
    with RecordingServer() as server:
        ship(log, "--url", server.url, *state, "--service", "web")
        assert server.requests[0].records[0] == {"service": "web", "message": "one"}
        assert server.requests[0].headers["content-type"] == "application/x-ndjson"


def test_the_same_file_twice_is_one_file(log, state):
    with RecordingServer() as server:
        _, counts = ship(log, log, "--url", server.url, *state)
    assert counts["records_accepted"] == 3


def test_rejected_lines_fail_it_and_are_named(log, state, capsys):
    with RecordingServer(lambda r: accepted(3, rejected={1: "no"})) as server:
        status, counts = ship(log, "--url", server.url, *state)
    assert status == 1
    assert counts["records_rejected"] == 1
    assert "the line that ends at byte 8 was rejected: bad no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing.log"], "does not exist"),
        ([".", "--url", "ftp://x"], "must look like"),
        (["."], "not a regular file"),
        (["x", "--path", "/event"], "ndjson only"),
        (["x", "--format", "ndjson", "--service", "a"], "--service goes with"),
        (["x", "--follow", "--once"], "not allowed with"),
    ],
)
def test_what_cannot_be_is_said(arguments, complaint, state):
    with pytest.raises(CommandError, match=complaint):
        call_command("ship", *arguments, *map(str, state))


def test_a_wrong_key_ends_it(log, state):
    with (
        RecordingServer(lambda _: Answer(401, body=b'{"detail":"no key"}')) as server,
        pytest.raises(CommandError, match=r"401: no key\. Is COLLECTOR_API_KEY set"),
    ):
        ship(log, "--url", server.url, *state)


def test_a_server_that_is_not_there_is_asked_for(log, state):
    with RecordingServer() as server:
        url = server.url
    with pytest.raises(CommandError, match=r"cannot connect.*name the server with --url$"):
        ship(log, "--url", url, *state, "--retry-for", "0.001")


def test_the_server_is_this_installations_own(log, state, settings):
    with RecordingServer() as server:
        own = dataclasses.replace(settings.COLLECTOR.server, host="0.0.0.0", port=server.port)
        settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, server=own)
        assert ship(log, *state)[1]["records_accepted"] == 3


def test_sigterm_finishes_the_batch_and_remembers_it(log, state):
    """The signal comes while the server has the request in hand."""
    process: list[subprocess.Popen[str]] = []

    def answer(received):
        process[0].send_signal(signal.SIGTERM)
        return accept(received)

    with RecordingServer(answer) as server:
        command = [
            sys.executable, "manage.py", "ship", "--follow", "--max-wait", "0", "--json",
            "--url", server.url, *map(str, state), str(log),
        ]  # fmt: skip
        process.append(
            subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        out, err = process[0].communicate(timeout=60)
        assert process[0].returncode == 0, err
        assert json.loads(out)["records_accepted"] == 3
        server.answer = accept
        assert ship(log, "--url", server.url, *state)[1]["requests"] == 0


@pytest.mark.long
def test_a_shipped_file_is_found_in_the_database(collector_server, log, state):
    server = collector_server()
    log.write_bytes(b"one\n\xff\x00binary\n" + b"long" * 1000 + b"\nlast")
    done = subprocess.run(
        [
            sys.executable,
            "manage.py",
            "ship",
            "--json",
            "--gzip",
            "--max-line-bytes",
            "100",
            "--url",
            server.url,
            str(log),
        ],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["records_accepted"] == 4
    assert (server.data_dir / "ship").is_dir()
    server.stop()
    assert "       4" in server.output
