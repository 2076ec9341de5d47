"""A small supervisor: prepares the installation, then runs its processes until it is told to stop.

    python -m collector_site.supervisor

Forwards signals, restarts a child that died (after a growing pause), prints one ready line, and
waits for all children at the end. TERM, INT, QUIT: drain and end; a second INT (Ctrl-C): leave in
the log what is not delivered yet, and end. HUP because the terminal is gone: drain and end. HUP
otherwise, as service managers send it: new workers read the configuration and take over while the
old ones drain. One thread and one loop; signals arrive through a pipe, so
nothing is shared and no lock is needed.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collector_site.announce import READY_FD, SAME_PRESS_S
from collector_site.preflight import PUT_OFF, DataDirectory, address_fault, prepare

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run. One with `announces` writes its address to the ready pipe once it serves.

    One that runs `once` has done its work when it exits with 0, and is not started again then.
    Whatever becomes of it, the others go on. One that `reloads` is sent HUP; one that `hurries` INT
    when a person asks a second time. Others know TERM alone.
    """

    name: str
    command: tuple[str, ...]
    announces: bool = False
    once: bool = False
    reloads: bool = False
    hurries: bool = False


@dataclass(kw_only=True)
class Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    ready_pipe: int = -1
    address: str = ""
    ready: bool = False
    started_at: float = 0.0
    restart_at: float | None = None
    deaths: int = 0
    status: int | None = field(default=None)


class Supervisor:
    def __init__(
        self,
        *,
        programs: Sequence[Program],
        stop_deadline_s: float = 30.0,
        backoff_s: float = 0.5,
        backoff_cap_s: float = 30.0,
        steady_s: float = 60.0,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        say: Callable[[str], None] | None = None,
        foreword: str = "",
        terminal: Callable[[], bool] | None = None,
    ) -> None:
        self._children = [Child(program=program) for program in programs]
        self._stop_deadline_s = stop_deadline_s
        self._backoff_s = backoff_s
        self._backoff_cap_s = backoff_cap_s
        self._steady_s = steady_s
        self._environ = dict(os.environ if environ is None else environ)
        self._directory = directory
        self._say = say or _print
        # Said right before the ready line, so that the children's lines do not bury it.
        self._foreword = foreword
        self._has_terminal = terminal or has_terminal
        self._had_terminal = self._has_terminal()
        self._announced = False
        self._stopping_since: float | None = None
        self._failed = 0

    def run(self) -> int:
        """Run until stopped; the exit status is 0 when every child ended well."""
        self._selector = selectors.DefaultSelector()
        wake_read, wake_write = socket.socketpair()
        for end in (wake_read, wake_write):
            end.setblocking(False)
        self._selector.register(wake_read, selectors.EVENT_READ)
        before = signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        numbers = [*STOP_SIGNALS, signal.SIGCHLD]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
        try:
            for child in self._children:
                self._start(child)
            while self._running():
                for key, _ in self._selector.select(self._pause()):
                    if key.fileobj is wake_read:
                        self._signals(wake_read.recv(64))
                    else:
                        self._read_ready(key.data)
                self._look_after()
        finally:
            self._kill_all()
            if self._foreword:
                self._say(self._take_foreword().rstrip("\n"))
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            self._selector.close()
            wake_read.close()
            wake_write.close()
        # One that had not yet begun to listen for TERM dies of it, and had nothing to lose.
        ended_well = (None, 0, -signal.SIGTERM)
        # What runs once and had not succeeded yet is done by the next start.
        lasting = [child for child in self._children if not child.program.once]
        failed = any(child.status not in ended_well for child in lasting)
        return self._failed or int(failed)

    def _running(self) -> bool:
        if any(child.process is not None for child in self._children):
            return True
        return self._stopping_since is None and not self._failed

    def _pause(self) -> float:
        now = time.monotonic()
        waits = [child.restart_at - now for child in self._children if child.restart_at is not None]
        if self._stopping_since is not None:
            waits.append(self._stopping_since + self._stop_deadline_s - now)
        return max(0.0, min([*waits, 5.0]))

    def _signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in STOP_SIGNALS:
                self._stop(again=number == signal.SIGINT)
            elif number == signal.SIGHUP:
                if self._had_terminal and not self._has_terminal():
                    self._stop()
                else:
                    self._reload()

    def _stop(self, *, again: bool = False) -> None:
        """Tell every child, each time; `again` says that a repetition is a person's haste."""
        now = time.monotonic()
        hasty = (
            again and self._stopping_since is not None and now - self._stopping_since > SAME_PRESS_S
        )
        if self._stopping_since is None:
            self._stopping_since = now
        for child in self._children:
            child.restart_at = None
            if child.process is not None:
                # Whatever came first, TERM goes out: children drain at any of them.
                hurries = hasty and child.program.hurries
                child.process.send_signal(signal.SIGINT if hurries else signal.SIGTERM)

    def _reload(self) -> None:
        if self._stopping_since is not None:
            return
        for child in self._children:
            if child.process is not None and child.program.reloads and child.ready:
                child.process.send_signal(signal.SIGHUP)

    def _start(self, child: Child) -> None:
        environ = dict(self._environ)
        fds: tuple[int, ...] = ()
        if child.program.announces:
            child.ready_pipe, write = os.pipe()
            environ[READY_FD] = str(write)
            fds = (write,)
            self._selector.register(child.ready_pipe, selectors.EVENT_READ, child)
        child.restart_at = None
        child.started_at = time.monotonic()
        child.ready = not child.program.announces
        try:
            child.process = subprocess.Popen(
                child.program.command,
                env=environ,
                cwd=self._directory,
                pass_fds=fds,
                # Out of the terminal's process group: Ctrl-C reaches this process, which forwards
                # it once.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        finally:
            for descriptor in fds:
                os.close(descriptor)

    def _read_ready(self, child: Child) -> None:
        text = os.read(child.ready_pipe, 4096).decode("utf-8", "replace").strip()
        self._close_pipe(child)
        if text:
            child.ready, child.address = True, text
        if not self._announced and all(item.ready for item in self._children):
            self._announced = True
            for item in self._children:
                if item.address:
                    self._say(f"{self._take_foreword()}ready {item.address}")

    def _take_foreword(self) -> str:
        foreword, self._foreword = self._foreword, ""
        return foreword

    def _close_pipe(self, child: Child) -> None:
        if child.ready_pipe >= 0:
            self._selector.unregister(child.ready_pipe)
            os.close(child.ready_pipe)
            child.ready_pipe = -1

    def _look_after(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, child.process.returncode, now)
            elif child.restart_at is not None and now >= child.restart_at:
                self._start(child)
        overdue = self._stopping_since is not None and (
            now - self._stopping_since > self._stop_deadline_s
        )
        if overdue:
            for child in self._children:
                if child.process is not None:
                    self._say(f"{child.program.name} did not stop in time and was killed")
            self._kill_all()

    def _ended(self, child: Child, status: int, now: float) -> None:
        child.process, child.status = None, status
        was_ready = child.ready
        self._close_pipe(child)
        if self._stopping_since is not None:
            if child.program.once:
                child.status = 0  # interrupted: the next start goes on with it
            return
        if child.program.once and status == 0:
            return
        if not was_ready and child.deaths == 0:
            self._say(f"{child.program.name} could not start (exit status {status}); see above")
            self._failed = status if status > 0 else 1
            self._stop()
            return
        steady = now - child.started_at > self._steady_s
        child.deaths = 1 if steady else child.deaths + 1
        pause = min(self._backoff_cap_s, self._backoff_s * 2 ** min(child.deaths - 1, 10))
        child.restart_at = now + pause
        self._say(
            f"{child.program.name} ended unexpectedly (exit status {status}); "
            f"it is started again in {pause:g} s"
        )

    def _kill_all(self) -> None:
        for child in self._children:
            if child.process is not None:
                try:
                    os.killpg(child.process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                child.status = child.process.wait()
                child.process = None
                self._close_pipe(child)


def _print(line: str) -> None:
    # In one write: the children share this stream.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _die_with_parent() -> None:
    """Should the supervisor be killed, the kernel sends a TERM: nothing is left running."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux: an orphan then runs on until it is told


def programs(*, unprepared: bool = False, checker: bool = True, jobs: bool = True) -> list[Program]:
    """The processes of this installation; with what goes on preparing it where that is not done."""
    server = (sys.executable, "-m", "gunicorn", "-c", "collector_site/gunicorn_conf.py")
    found = [Program(name="server", command=server, announces=True, reloads=True, hurries=True)]
    if checker:
        checking = (sys.executable, "manage.py", "run_checker")
        found.append(Program(name="checker", command=checking, hurries=True))
    if jobs:
        running = (sys.executable, "manage.py", "run_jobs")
        found.append(Program(name="jobs", command=running, hurries=True))
    if unprepared:
        command = (sys.executable, "manage.py", "prepare", "--until-done")
        found.append(Program(name="preparation", command=command, once=True))
    return found


def main() -> int:
    from collector_site.environment import BASE_DIR, installation

    settings = installation()
    server = settings.server
    # Where a setting is wrong, its default stands in for it: the preparation names the mistake.
    if not any(mistake.fatal for mistake in settings.mistakes):
        fault = address_fault(server.host, server.port)
        if fault:
            print(fault, file=sys.stderr)
            return 1
    data_directory = DataDirectory(server.data_dir)
    company = data_directory.enter()
    if company:
        print(company, file=sys.stderr)
    try:
        status, said = prepare(BASE_DIR)
        if status not in (0, PUT_OFF):
            sys.stdout.write(said)
            return status
        supervisor = Supervisor(
            programs=programs(
                unprepared=status == PUT_OFF,
                checker=settings.monitoring.run_checker,
                jobs=settings.jobs.run_jobs,
            ),
            # Past the children's own deadline, so that one that keeps it is never killed.
            stop_deadline_s=server.stop_deadline_s + 2,
            directory=BASE_DIR,
            foreword=said,
        )
        return supervisor.run()
    finally:
        data_directory.leave()


if __name__ == "__main__":
    sys.exit(main())
