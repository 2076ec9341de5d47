"""The supervisor with real children: small Python programs that record what happens to them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers.collector import CollectorServer

pytestmark = [pytest.mark.server, pytest.mark.once]

# A child that says it is ready, then waits for TERM and leaves a note.
PATIENT = """
    import os, signal, sys, time
    def say(line):
        os.write(1, line.encode() + b"\\n")
    def stop(number, frame):
        say(f"{sys.argv[1]} got {signal.Signals(number).name}")
        count.append(number)
    count = []
    signal.signal(signal.SIGTERM, stop)
    if len(sys.argv) > 3:
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, stop)
    fd = int(os.environ.get("COLLECTOR_READY_FD", "0"))
    if fd:
        os.write(fd, b"http://" + sys.argv[1].encode())
        os.close(fd)
    say(f"{sys.argv[1]} runs as {os.getpid()}")
    while len(count) < int(sys.argv[2]):
        signal.pause()
    say(f"{sys.argv[1]} ends")
"""

RUNNER = """
    import sys
    from collector_site.supervisor import Program, Supervisor
    programs = {programs}
    sys.exit(Supervisor(programs=programs, {options}).run())
"""

Start = Callable[..., CollectorServer]


def program(name: str, *code: str, arguments: tuple[str, ...] = (), **flags: bool) -> str:
    command = (sys.executable, "-c", textwrap.dedent("\n".join(code)), *arguments)
    told = "".join(f", {flag}={value}" for flag, value in flags.items())
    return f"Program(name={name!r}, command={command!r}{told})"


def patient(name: str, terms: int = 1, *, announces: bool = True, reloads: bool = False) -> str:
    arguments = (name, str(terms), *(["all"] if reloads else []))
    flags = {"announces": announces, "reloads": reloads, "hurries": reloads}
    return program(name, PATIENT, arguments=arguments, **flags)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Start]:
    started: list[CollectorServer] = []

    def start(*programs: str, options: str = "backoff_s=0.01") -> CollectorServer:
        code = textwrap.dedent(RUNNER).format(programs=f"[{', '.join(programs)}]", options=options)
        server = CollectorServer(data_dir=tmp_path, command=(sys.executable, "-c", code))
        started.append(server)
        return server.spawn()

    yield start
    for server in started:
        server.end()


def pid_of(server: CollectorServer, name: str, nth: int = 1) -> int:
    def lines() -> list[str]:
        return [line for line in server.lines if line.startswith(f"{name} runs as ")]

    server.wait_until(lambda: len(lines()) >= nth)
    return int(lines()[nth - 1].split()[-1])


def test_one_ready_line_comes_when_all_children_are_ready(supervise: Start) -> None:
    server = supervise(patient("one"), patient("two"), patient("quiet", announces=False))
    server.wait_for_line(lambda line: line == "ready http://two")
    assert sorted(line for line in server.lines if line.startswith("ready")) == [
        "ready http://one",
        "ready http://two",
    ]
    pid_of(server, "quiet")
    assert server.stop() == 0
    assert {"one ends", "two ends", "quiet ends"} <= set(server.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_every_stop_signal_reaches_the_children_as_term(supervise: Start, number: int) -> None:
    server = supervise(patient("one"), patient("two"))
    for name in ("one", "two"):
        pid_of(server, name)
    assert server.stop(number) == 0
    assert {"one got SIGTERM", "two got SIGTERM"} <= set(server.lines)


def test_ctrl_c_on_the_terminal_reaches_the_children_once_and_as_term(supervise: Start) -> None:
    server = supervise(patient("one"), patient("two"))
    for name in ("one", "two"):
        pid_of(server, name)
    os.killpg(server.pid, signal.SIGINT)  # as a terminal does: to its whole process group
    assert server.wait() == 0
    assert [server.lines.count(f"{name} got SIGTERM") for name in ("one", "two")] == [1, 1]
    assert "KeyboardInterrupt" not in server.output


def test_a_second_signal_is_forwarded_and_kills_nobody(supervise: Start) -> None:
    server = supervise(patient("one", terms=2))
    pid_of(server, "one")
    server.send(signal.SIGINT)
    server.wait_for_line(lambda line: line == "one got SIGTERM")
    server.send(signal.SIGINT)
    assert server.wait() == 0
    assert server.lines.count("one got SIGTERM") == 2
    assert "one ends" in server.lines


def test_it_waits_for_the_slowest_child(supervise: Start) -> None:
    server = supervise(patient("quick"), patient("slow", terms=2))
    pid_of(server, "quick")
    slow = pid_of(server, "slow")
    server.send(signal.SIGTERM)
    server.wait_for_line(lambda line: line == "quick ends")
    server.wait_for_line(lambda line: line == "slow got SIGTERM")
    assert server.process is not None
    assert server.process.poll() is None
    os.kill(slow, signal.SIGTERM)
    assert server.wait() == 0
    assert server.lines[-1] == "slow ends"


def test_a_child_that_died_is_started_again_and_the_ready_line_is_not(supervise: Start) -> None:
    server = supervise(patient("one"), patient("two"))
    server.wait_for_line(lambda line: line == "ready http://two")
    for nth in (1, 2):
        os.kill(pid_of(server, "one", nth), signal.SIGKILL)
    pid_of(server, "one", 3)
    assert [line for line in server.lines if line.startswith("one ended unexpectedly")] == [
        "one ended unexpectedly (exit status -9); it is started again in 0.01 s",
        "one ended unexpectedly (exit status -9); it is started again in 0.02 s",
    ]
    assert server.stop() == 0
    assert server.lines.count("ready http://one") == 1
    assert server.lines.count("two ends") == 1


def test_a_child_that_never_became_ready_ends_it_all(supervise: Start) -> None:
    broken = program("broken", "raise SystemExit(3)", announces=True)
    server = supervise(patient("one", announces=False), broken)
    assert server.wait() == 3
    assert "broken could not start (exit status 3); see above" in server.lines
    assert not [line for line in server.lines if line.startswith("ready")]


def test_a_child_that_does_not_stop_is_killed_at_the_deadline(supervise: Start) -> None:
    server = supervise(patient("deaf", terms=99), options="stop_deadline_s=0.2")
    pid_of(server, "deaf")
    assert server.stop() == 1
    assert "deaf did not stop in time and was killed" in server.lines


def test_a_bad_end_at_the_stop_shows_in_the_exit_status(supervise: Start) -> None:
    bad = PATIENT.rstrip() + "\n    sys.exit(7)\n"
    server = supervise(patient("one"), program("bad", bad, arguments=("bad", "1"), announces=True))
    server.wait_for_line(lambda line: line == "ready http://bad")
    assert server.stop() == 1


def test_children_do_not_outlive_a_killed_supervisor(supervise: Start) -> None:
    server = supervise(patient("one"))
    child = psutil.Process(pid_of(server, "one"))
    server.send(signal.SIGKILL)
    assert server.process is not None
    server.process.wait(180)
    server.wait_for_line(lambda line: line == "one ends")
    psutil.wait_procs([child], timeout=180)
    assert not child.is_running()


def test_pauses_grow_to_the_cap() -> None:
    from collector_site.supervisor import Child, Program, Supervisor

    said: list[str] = []
    one = Program(name="one", command=("true",))
    supervisor = Supervisor(programs=[one], backoff_s=1, backoff_cap_s=5, say=said.append)
    child = Child(program=one, ready=True, started_at=0)
    pauses = []
    for _ in range(5):
        supervisor._ended(child, 1, now=0.0)
        pauses.append(child.restart_at)
    assert pauses == [1, 2, 4, 5, 5]
    # One that ran for long begins again with a short pause.
    supervisor._ended(child, 1, now=61.0)
    assert child.restart_at == 62.0


def test_make_run_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """The whole first start: accounts, migrations, one ready line, a clean end, a quick second."""
    command = (sys.executable, "-m", "collector_site.supervisor")
    first = CollectorServer(data_dir=tmp_path / "data", command=command)
    try:
        first.start()
        assert first.client().get("/healthz").status_code == 200
        # The password comes last before the ready line, past what the starting server logs.
        position = {name: first.output.index(name) for name in ("Listening at", "password  ")}
        assert position["Listening at"] < position["password  "] < first.output.index("ready http")
        assert first.stop(signal.SIGINT) == 0
        assert len([line for line in first.lines if line.startswith("ready ")]) == 1
        assert "ledger of log" in first.output, first.output
    finally:
        first.end()
    second = CollectorServer(data_dir=tmp_path / "data", command=command)
    try:
        second.start()
        assert not any("password" in line for line in second.lines)
        assert second.stop() == 0
    finally:
        second.end()


def supervisor_of(data_dir: Path, port: int = 0) -> CollectorServer:
    return CollectorServer(
        data_dir=data_dir,
        environ={"PORT": str(port)},
        command=(sys.executable, "-m", "collector_site.supervisor"),
    )


def test_a_port_in_use_is_said_in_one_line_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = supervisor_of(tmp_path / "data", port).spawn()
        assert server.wait() == 1
    (line,) = server.lines
    assert line.startswith(
        f"127.0.0.1:{port} is already in use: stop the other server or choose another port, "
        "for example PORT="
    )
    assert line.endswith(" make run")
    assert not (tmp_path / "data" / "control.sqlite3").exists()


def test_an_address_of_another_machine_is_named() -> None:
    from collector_site.preflight import address_fault

    fault = address_fault("192.0.2.1", 0)
    assert fault.startswith("192.0.2.1:0 cannot be used (")
    assert "set HOST to an address of this machine" in fault
    assert address_fault("127.0.0.1", 0) == ""


@pytest.mark.long
def test_a_second_supervisor_on_a_data_directory_says_so(tmp_path: Path) -> None:
    first = supervisor_of(tmp_path / "data")
    second = supervisor_of(tmp_path / "data")
    try:
        first.start()
        second.start()
        said = f"another supervisor (process {first.pid}) already serves the data directory"
        assert len([line for line in second.lines if line.startswith(said)]) == 1
        assert second.stop() == 0
        assert first.stop() == 0
        assert "another supervisor" not in first.output
    finally:
        first.end()
        second.end()


def test_a_password_is_not_lost_with_a_start_that_fails(supervise: Start) -> None:
    broken = program("broken", "raise SystemExit(3)", announces=True)
    server = supervise(broken, options="foreword='the password\\n'")
    assert server.wait() == 3
    assert server.lines.count("the password") == 1


def test_the_foreword_comes_once_and_right_before_the_ready_line(supervise: Start) -> None:
    server = supervise(patient("one"), patient("two"), options="foreword='the password\\n'")
    server.wait_for_line(lambda line: line == "ready http://two")
    assert server.stop() == 0
    assert server.lines.count("the password") == 1
    at = server.lines.index("the password")
    assert server.lines[at + 1].startswith("ready http://")


def test_a_mistake_in_the_settings_is_named_before_anything_starts(tmp_path: Path) -> None:
    server = CollectorServer(
        data_dir=tmp_path / "data",
        environ={"COLLECTOR_RESERVED_THREADS": "99"},
        command=(sys.executable, "-m", "collector_site.supervisor"),
    ).spawn()
    assert server.wait() == 1
    assert "collector.E010" in server.output
    assert "ready" not in server.output


def test_the_second_ctrl_c_arrives_as_int_and_term_never_hurries(supervise: Start) -> None:
    server = supervise(patient("server", terms=3, reloads=True))
    pid_of(server, "server")
    server.send(signal.SIGTERM)
    server.wait_until(lambda: server.lines.count("server got SIGTERM") == 1)
    server.send(signal.SIGTERM)
    server.wait_until(lambda: server.lines.count("server got SIGTERM") == 2)
    threading.Event().wait(0.6)  # longer than one press takes to be told twice
    server.send(signal.SIGINT)
    assert server.wait() == 0
    assert "server got SIGINT" in server.lines


def test_a_hangup_reloads_what_can_reload(supervise: Start) -> None:
    server = supervise(patient("server", terms=2, reloads=True), patient("other"))
    for name in ("server", "other"):
        pid_of(server, name)
    server.wait_for_line(lambda line: line.startswith("ready"))
    server.send(signal.SIGHUP)
    server.wait_for_line(lambda line: line == "server got SIGHUP")
    assert not any(line.startswith("other got") for line in server.lines)
    assert server.stop() == 0


def test_a_hangup_because_the_terminal_is_gone_stops(supervise: Start) -> None:
    server = supervise(
        patient("server", reloads=True), options="terminal=iter([True, False]).__next__"
    )
    pid_of(server, "server")
    assert server.stop(signal.SIGHUP) == 0
    assert "server got SIGTERM" in server.lines


def test_a_hangup_on_a_terminal_that_is_still_there_reloads(supervise: Start) -> None:
    server = supervise(
        patient("server", terms=2, reloads=True), options="terminal=iter([True, True]).__next__"
    )
    server.wait_for_line(lambda line: line.startswith("ready"))
    server.send(signal.SIGHUP)
    server.wait_for_line(lambda line: line == "server got SIGHUP")
    assert server.stop() == 0


def test_what_runs_once_is_not_started_again_once_it_is_done(supervise: Start) -> None:
    once = program("once", "import os; os.write(1, b'once ran\\n')", once=True)
    server = supervise(patient("server"), once)
    pid_of(server, "server")
    server.wait_for_line(lambda line: line == "once ran")
    assert server.stop() == 0
    assert server.lines.count("once ran") == 1
    assert "ended unexpectedly" not in server.output


def test_what_runs_once_and_fails_is_tried_again_and_stops_nobody(supervise: Start) -> None:
    once = program("once", "import os, sys; os.write(1, b'once ran\\n'); sys.exit(1)", once=True)
    server = supervise(patient("server"), once)
    server.wait_until(lambda: server.lines.count("once ran") >= 3)
    assert "ready http://server" in server.lines
    assert server.stop() == 0
