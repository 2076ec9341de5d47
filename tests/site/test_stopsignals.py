"""Stop signals that come again: while a process drains, and when it has done its work and ends.

Each process is a real interpreter, which sends itself the signals at the very places that matter.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.servers.collector import GENEROUS_S, ROOT, clean_environ

BEGIN = """
    import os, signal, threading
    os.environ["DJANGO_SETTINGS_MODULE"] = "collector_site.settings"
    import django
    django.setup()
    from control.processes import lifecycle

    hurried = threading.Event()

    def stop(deadline_s):
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
            os.kill(os.getpid(), number)
        print("hurried" if hurried.wait(60) else "went on")
        return True

    lifecycle.start = lambda role: None
    lifecycle.stop = stop
    lifecycle.hurry = hurried.set
"""

CHECKER = """
    from healthmon.checker import process
    from healthmon.management.commands.run_checker import Command

    async def run(self, **options):
        os.kill(os.getpid(), signal.SIGTERM)

    process.CheckerProcess.run = run
    Command().handle(target=[], once=False, json=False)
"""

JOBS = """
    from jobs.management.commands import run_jobs

    def stuck():
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    run_jobs._stuck = stuck
    run_jobs.Command().handle(until_idle=False)
"""

SERVER = """
    from collector_site import announce, gunicorn_conf

    class Arbiter:
        pid = os.getpid()

    gunicorn_conf.when_ready(Arbiter())
    gunicorn_conf.on_exit(Arbiter())
"""

# What a module holds goes when the interpreter has put back the default actions.
END = """
    class Last:
        def __init__(self, kill, own, number):
            self.__dict__.update(locals())

        def __del__(self):
            self.kill(self.own, self.number)

    last = Last(os.kill, os.getpid(), signal.{name})
"""


def run(data_dir: Path, *code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-c", "".join(map(textwrap.dedent, code))),
        cwd=ROOT,
        env=clean_environ(data_dir, {}),
        capture_output=True,
        text=True,
        timeout=GENEROUS_S,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", [CHECKER, JOBS, SERVER], ids=["checker", "jobs", "server"])
def test_a_signal_at_the_very_end_does_not_change_the_exit_status(
    tmp_path: Path, code: str, number: signal.Signals
) -> None:
    done = run(tmp_path, BEGIN, code, END.format(name=number.name))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", [CHECKER, JOBS], ids=["checker", "jobs"])
def test_of_signals_during_a_drain_only_a_second_ctrl_c_cuts_it_short(
    tmp_path: Path, code: str
) -> None:
    done = run(tmp_path, BEGIN, code)
    assert (done.returncode, done.stdout) == (0, "hurried\n"), done.stderr
