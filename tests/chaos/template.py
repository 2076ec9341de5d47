"""An installation that was prepared and configured once; each round starts from a copy.

Its sinks: the database, files, and a third party's sink that fails on demand. All are required.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.servers.collector import ROOT, clean_environ
from tests.servers.installation import prepare_installation

DATABASE, FILES, THIRD_PARTY = "database", "files", "third-party"

_SINKS = f"""
[[sinks]]
name = "{FILES}"
backend = "sinks.backends.file.FileSink"
options = {{ directory = "files", format = "payload" }}

[[sinks]]
name = "{THIRD_PARTY}"
backend = "tests.chaos.sinks.ThirdPartySink"
options = {{ directory = "{THIRD_PARTY}" }}
"""


class Template:
    def __init__(self, *, directory: Path, cluster: Cluster | None) -> None:
        self._data_dir = directory / "template"
        self.database = ""
        environ = {"COLLECTOR_SINK_ALLOWED_PATHS": "sinks.backends.*,tests.chaos.sinks.*"}
        if cluster is not None:
            self.database = environ["COLLECTOR_DATABASE_URL"] = cluster.create_database()
        prepare_installation(self._data_dir, environ)
        wanted = directory / "sinks.toml"
        wanted.write_text(_SINKS)
        done = subprocess.run(
            (sys.executable, "manage.py", "config", "apply", "--yes", str(wanted)),
            cwd=ROOT,
            env=clean_environ(self._data_dir, environ),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"the sinks could not be configured:\n{done.stdout}{done.stderr}")

    def copy_to(self, data_dir: Path) -> None:
        shutil.copytree(self._data_dir, data_dir)
