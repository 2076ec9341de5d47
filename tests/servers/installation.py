"""A fresh installation in a data directory, migrated as `make run` would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.servers.collector import ROOT, clean_environ


def prepare_installation(data_dir: Path, environ: Mapping[str, str]) -> str:
    """Run `manage.py prepare`; returns what it printed."""
    done = subprocess.run(
        (sys.executable, "manage.py", "prepare"),
        cwd=ROOT,
        env=clean_environ(data_dir, environ),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"the installation could not be prepared:\n{done.stdout}{done.stderr}")
    return done.stdout
