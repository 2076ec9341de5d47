"""`manage.py produce`: options, output, signals, exit codes, in process and over HTTP."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from ingest.producer.slowsink import SlowSink
from tests.commands.recording import Answer, Drop, RecordingServer, accept, accepted
from tests.servers.collector import ROOT, clean_environ

GENEROUS_S = 180.0
METRICS = re.compile(
    r"\[METRICS\] Produced=\d+/s \| Processed=\d+/s \| Queue=\d+/\d+ \| Workers=\d+\Z"
)
# Nothing closes a batch but its size and the end.
WAITS = ("--rate", "1us", "--batch-timeout", "1h")


def produce(*arguments):
    """Exit status, lines of standard output."""
    out = StringIO()
    status: object = 0
    try:
        call_command("produce", *arguments, stdout=out)
    except SystemExit as ended:
        status = ended.code
    return status, out.getvalue().splitlines()


def number_in(pattern: str, line: str) -> str:
    found = re.fullmatch(pattern, line)
    assert found is not None, line
    return found[1]


class Started:
    """The command as a process of its own, whose lines are read as they come."""

    def __init__(self, tmp_path, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "produce", *arguments],
            cwd=ROOT,
            env=clean_environ(tmp_path, {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._timer = threading.Timer(GENEROUS_S, self.process.kill)
        self._timer.start()

    def read_until(self, wanted):
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if wanted(self.lines[-1]):
                return self.lines[-1]
        raise AssertionError(f"it did not come: {self.lines} {self.process.stderr.read()}")

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """The exit status, the rest of the lines read."""
        out, err = self.process.communicate()
        self._timer.cancel()
        self.lines += out.splitlines()
        assert "Traceback" not in err, err
        return self.process.returncode


@pytest.fixture
def start(tmp_path):
    started: list[Started] = []

    def begin(*arguments):
        started.append(Started(tmp_path, *arguments))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.end()


def test_a_number_of_logs_is_made_and_all_are_processed():
    status, lines = produce("--count", "107", *WAITS)
    assert status == 0
    assert [line for line in lines if not line.startswith(("Worker", "[METRICS]"))] == [
        "The producer has ended: 107 logs are made",
        "Producer stopped after 107 logs",
        "Autoscaler stopped",
        next(line for line in lines if re.fullmatch(r"Buffer closed, \d+ logs to flush", line)),
        "All workers joined",
        "[RESULT] Produced=107 | Processed=107 | equal: every log arrived once",
        "Program finished",
    ]
    assert "flushed batch of 7 logs" in "\n".join(lines)


def test_a_log_that_is_lost_fails_it(monkeypatch):
    def loses(self, batch):
        self._tally.add(len(batch.records) - 1)

    monkeypatch.setattr(SlowSink, "write", loses)
    status, lines = produce("--count", "7", *WAITS)
    assert status == 1
    assert lines[-2].startswith("[RESULT] Produced=7 | Processed=6 | NOT equal: 1 logs were not")


def test_it_ends_when_its_time_is_over():
    status, lines = produce("--duration", "50ms", "--rate", "1ms")
    assert status == 0
    assert lines[0] == "The producer has ended: its time is over"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rate", "100"], "write it like 100us"),
        (["--rate", "0"], "not between"),
        (["--sink-latency", "-1s"], "expected one argument|no duration"),
        (["--channel-size", "10"], r"--channel-size \(10\) must hold at least one batch"),
        (["--min-workers", "11"], r"--min-workers \(11\) must not be more than --max-workers \(10"),
        (["--scale-down", "0.9"], r"--scale-down \(0.9\) must be less than --scale-up \(0.8\)"),
        (["--scale-up", "1.5"], "not between"),
        (["--url", "ftp://x"], "must look like"),
        (["--url", "http://192.0.2.1"], "is not this machine"),
        (["--count", "0"], "not between"),
    ],
)
def test_what_cannot_be_is_said(arguments, complaint):
    with pytest.raises(CommandError, match=complaint):
        produce(*arguments)


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(start, number):
    run = start("--sink-latency", "100ms", "--rate", "200us", "--autoscale-interval", "100ms")
    run.read_until(METRICS.match)
    run.read_until(METRICS.match)
    run.signal(number)
    assert run.end() == 0, run.lines
    at = run.lines.index("Shutdown signal received!")
    before, after = run.lines[:at], run.lines[at:]
    assert all(
        METRICS.match(line) or re.fullmatch(r"Scaler: scaling (UP|Down), workers = \d+", line)
        for line in before
    )
    assert before[0].startswith("Scaler: scaling UP, workers = 2")
    flushes = [
        line for line in after if re.fullmatch(r"Worker \d+ flushed batch of \d+ logs", line)
    ]
    assert flushes
    produced = number_in(r"Producer stopped after (\d+) logs", after[1])
    assert after == [
        "Shutdown signal received!",
        f"Producer stopped after {produced} logs",
        "Autoscaler stopped",
        after[3],
        *flushes,
        "All workers joined",
        f"[RESULT] Produced={produced} | Processed={produced} | equal: every log arrived once",
        "Program finished",
    ]
    held = number_in(r"Buffer closed, (\d+) logs to flush", after[3])
    assert sum(int(line.split()[-2]) for line in flushes) >= int(held)


def test_a_second_signal_does_not_wait(start):
    run = start("--sink-latency", "1h", "--rate", "1ms")
    run.read_until(METRICS.match)
    run.signal(signal.SIGINT)
    run.read_until(lambda line: line.startswith("Buffer closed"))
    run.signal(signal.SIGINT)
    assert run.end() == 1
    assert "Second signal: what is left is dropped" in run.lines
    assert "NOT equal" in run.lines[-2]
    # Its write was aborted, and did end.
    assert not [line for line in run.lines if "hangs" in line]


def test_the_full_screen_is_left_behind_as_it_was_found(tmp_path):
    """In a terminal of its own: drawn there, ended by Ctrl-C, the last picture and lines stay."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "produce", "--watch", "--sink-latency", "20ms"],
        cwd=ROOT,
        env=clean_environ(tmp_path, {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    timer = threading.Timer(GENEROUS_S, process.kill)
    timer.start()
    seen, frames = b"", 0
    try:
        while chunk := _read(main):
            seen += chunk
            if frames < 3 and (frames := seen.count(b"what happened")) >= 3:
                process.send_signal(signal.SIGINT)
    finally:
        process.wait(GENEROUS_S)
        timer.cancel()
        os.close(main)
    text = seen.decode()
    assert process.returncode == 0, text
    drawn, left = text.split("\x1b[?1049l")
    assert "\x1b[?1049h" in drawn
    assert "Batch size" in drawn
    assert left.index("Produced") < left.index("Shutdown signal received!")
    assert left.rstrip().endswith("Program finished")
    assert "\x1b[?25h" in text  # the cursor is there again


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side is closed
        return b""


def test_without_a_terminal_lines_are_printed(capsys):
    status, lines = produce("--watch", "--count", "7", *WAITS)
    assert status == 0
    assert lines[-1] == "Program finished"
    assert "--watch needs a terminal" in capsys.readouterr().err


# --- over HTTP ----------------------------------------------------------------------------------


def over_http(server, *arguments):
    return produce("--url", server.url, "--count", "107", *WAITS, *arguments)


def test_the_same_logs_go_to_a_server():
    with RecordingServer() as server:
        status, lines = over_http(server, "--api-key", "secret-key", "--ack", "wal")
    assert status == 0
    assert "Produced=107 | Processed=107 | equal" in "\n".join(lines)
    records = [record for request in server.requests for record in request.records]
    assert len(records) == 107
    assert {tuple(record) for record in records} == {("msg", "level", "ts")}
    assert {record["msg"] for record in records} == {"hello from producer"}
    first = server.requests[0]
    assert first.path == "/logs?ack=wal"
    assert first.headers["content-type"] == "application/x-ndjson"
    assert first.headers["authorization"] == "Bearer secret-key"
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 3
    assert "secret-key" not in "\n".join(lines)


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(429, body=b'{"detail":"full"}', headers={"Retry-After": "0"}),
        Answer(503, body=b'{"detail":"stopping"}'),
        Answer(409, body=b'{"detail":"the first attempt is at work"}'),
        Drop(),
    ],
)
def test_what_is_refused_or_lost_is_sent_again_under_the_same_key(trouble):
    def answer(received):
        return trouble if received.number == 1 else accept(received)

    with RecordingServer(answer) as server:
        status, lines = over_http(server)
    assert status == 0, lines
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(keys) == 4
    assert len(set(keys)) == 3
    assert keys.count(keys[1]) == 2
    again = [r.body for r in server.requests if r.headers["idempotency-key"] == keys[1]]
    assert again[0] == again[1]


def test_what_the_server_rejects_is_not_processed():
    def answer(received):
        count = len(received.records)
        return accepted(count, rejected={0: "no"}) if received.number == 0 else accepted(count)

    with RecordingServer(answer) as server:
        status, lines = over_http(server)
    assert status == 1
    assert "Produced=107 | Processed=106 | NOT equal: 1 logs were not processed" in lines[-2]


def test_what_the_server_sheds_is_not_processed():
    def answer(received):
        count = len(received.records)
        body = b'{"accepted":%d,"rejected":0,"shed":2,"errors":[],"ack":"wal"}' % (count - 2)
        return Answer(body=body) if received.number == 0 else accepted(count)

    with RecordingServer(answer) as server:
        status, lines = over_http(server)
    assert status == 1
    assert "Produced=107 | Processed=105" in lines[-2]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Answer(401, body=b'{"detail":"no key"}'), r"401: no key\. Is COLLECTOR_API_KEY set"),
        (Answer(404, body=b"nothing here"), "the server answered 404: nothing here"),
        (Answer(302), "the server answered 302"),
        (Answer(200, body=b"welcome"), "Is that URL a collector?"),
        (Answer(202, body=b'{"accepted":1}'), "without saying what became of all"),
    ],
)
def test_a_server_that_will_never_do_ends_it(answer, complaint):
    with (
        RecordingServer(lambda _: answer) as server,
        pytest.raises(CommandError, match=complaint),
    ):
        over_http(server)


def fails(*arguments):
    """What it says before it fails, and why it fails."""
    out = StringIO()
    with pytest.raises(CommandError) as failed:
        call_command("produce", *arguments, stdout=out)
    return out.getvalue().splitlines(), str(failed.value)


def test_where_nobody_listens_nothing_is_begun():
    with RecordingServer() as server:
        url = server.url
    lines, why = fails("--url", url, "--count", "7", "--rate", "1us", "--batch-timeout", "1ms")
    assert lines == ["[RESULT] Produced=0 | Processed=0 | no log was made"]
    assert re.fullmatch(r"cannot connect to \S+: .+\. Is the server running there\?", why)


def test_a_missing_key_is_said_in_one_sentence_under_the_result():
    answer = Answer(401, body=b'{"detail":"an API key is needed"}')
    with RecordingServer(lambda _: answer) as server:
        lines, why = fails("--url", server.url, *WAITS)
    assert [line for line in lines if not METRICS.match(line)] == [lines[-1]]
    assert re.fullmatch(
        r"\[RESULT\] Produced=(\d+) \| Processed=0 \| NOT equal: \1 logs were not processed .*",
        lines[-1],
    )
    assert why.startswith("the server answered 401: an API key is needed. Is COLLECTOR_API_KEY set")


def test_refusals_are_told_once_and_not_by_the_attempt():
    """Each says other figures, as the server's own do."""

    def answer(received):
        if received.number < 20:
            detail = b'{"detail":"sink 1 holds %d records"}' % (1000 + received.number)
            return Answer(429, body=detail, headers={"Retry-After": "0"})
        return accept(received)

    with RecordingServer(answer) as server:
        status, lines = produce(
            "--url", server.url, "--rate", "1us", "--count", "400", "--channel-size", "60"
        )
    assert status == 0
    assert len(server.requests) >= 28
    assert not [line for line in lines if "attempt" in line]
    assert len([line for line in lines if "tried again" in line]) <= 1


def test_a_slow_server_slows_the_producer_down():
    """Its refusals fill the queue; nothing is lost."""
    refused = threading.Event()

    def answer(received):
        if received.number < 4:
            refused.set()
            return Answer(429, body=b'{"detail":"full"}', headers={"Retry-After": "0"})
        return accept(received)

    with RecordingServer(answer) as server:
        status, lines = produce(
            "--url", server.url, "--rate", "1us", "--count", "400", "--channel-size", "60"
        )
    assert refused.is_set()
    assert status == 0
    assert "Produced=400 | Processed=400 | equal" in "\n".join(lines)


@pytest.mark.server
def test_the_logs_are_found_in_the_database(collector_server):
    server = collector_server()
    done = subprocess.run(
        [sys.executable, "manage.py", "produce", "--url", server.url, "--count", "1234"],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=GENEROUS_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[RESULT] Produced=1234 | Processed=1234 | equal" in done.stdout
    server.stop()
    assert re.search(r"\bdatabase\b.* 1234\b", server.output), server.output


def test_a_server_that_refuses_to_the_end_does_not_hold_it_longer_than_told():
    refusal = Answer(503, body=b'{"detail":"the database is away"}', headers={"Retry-After": "1"})
    with RecordingServer(lambda _: refusal) as server:
        status, lines = over_http(server, "--drain-timeout", "200ms")
    assert status == 1
    assert "Not everything was flushed in time" in lines
    assert "Produced=107 | Processed=0 | NOT equal: 107 logs were not processed" in lines[-2]
