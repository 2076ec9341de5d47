"""`manage.py` outside the virtual environment, and what `setup.sh` shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.collector import ROOT

PYTHON = """#!/bin/sh
case "$*" in
    "-VV") echo "Python of the test" ;;
    *"pip install"*) echo "a mirror says something"; echo "and warns" >&2; exit "$PIP_STATUS" ;;
    "-c "*) exit 0 ;;
    *) echo "the environment runs: $*" ;;
esac
"""


def make_python(directory: Path) -> None:
    python = directory / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)


def manage(directory: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "manage.py", directory)
    base = getattr(sys, "_base_executable", sys.executable)
    return subprocess.run(
        # -S: as an interpreter into which nothing was installed
        (base, "-S", "manage.py", "check", "--tag", "x y"),
        cwd=directory,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_another_python_hands_over_to_that_of_the_environment(tmp_path: Path) -> None:
    make_python(tmp_path)
    done = manage(tmp_path)
    assert done.stdout == "the environment runs: manage.py check --tag x y\n", done.stderr
    assert done.returncode == 0


def test_without_an_environment_it_says_what_to_do(tmp_path: Path) -> None:
    done = manage(tmp_path)
    assert done.returncode == 1
    assert done.stderr == "Django is not installed here: run `make setup` first.\n"


@pytest.mark.parametrize("status", [0, 1])
def test_setup_shows_what_pip_said_only_when_it_failed(tmp_path: Path, status: int) -> None:
    make_python(tmp_path)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text("one==1\n")
    done = subprocess.run(
        ("scripts/setup.sh",),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PIP_STATUS": str(status)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status
    assert ("a mirror says something" in said) == bool(status)
    assert ("and warns" in said) == bool(status)
    assert ("could not be installed" in said) == bool(status)
