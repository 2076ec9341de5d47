"""The engine as a library: built, installed where there is no Django, and used as its README says.

`pip install` without an index would fail if the wheel asked for anything but what is there.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.library.conftest import ROOT, SOURCE, run

CONSUMER = """\
from pipeline import Batch, Engine, PipelineSpec, Receipt, Record, RecordIds, RetryableError, Sink


class Mine(Sink):
    def write(self, batch: Batch) -> None:
        raise RetryableError(f"{batch.count} records", retry_after_s=1)


def offer(engine: Engine, records: list[Record]) -> Receipt:
    return engine.offer(type="log", tenant="t", records=records)


engine = Engine(log_id="log", ids=RecordIds(node=1))
engine.configure([PipelineSpec(key="1", name="mine", sink_factory=Mine)])
reveal_type(offer(engine, []).wait(1.0))
"""

EVERY_MODULE = """\
import importlib, pkgutil, pipeline
names = [one.name for one in pkgutil.walk_packages(pipeline.__path__, "pipeline.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""

LIFE = """\
import os, sys, threading
from pathlib import Path
from pipeline import *

both = threading.Semaphore(0)

class Mine(Sink):
    def write(self, batch: Batch) -> None:
        {takes}

logs = LogSettings(directory=Path(sys.argv[1]), adopt_every_s=0.05)
engine = Engine(log_id="{log_id}", ids=RecordIds(node=1), log_settings=logs)
settings = PipelineSettings(max_wait_s=0.01, max_workers=1)
engine.configure([PipelineSpec(key="1", name="mine", sink_factory=Mine, settings=settings)])
engine.start()
record = Record(0, INFO, "example", "from-{log_id}", "", "", b"{{}}")
receipt = engine.offer(type="log", tenant="me", records=[record], durable=True)
assert receipt.logged == "wal"
{end}
"""
KILLED = "os._exit(0)"
TAKES = "[print(one.message, flush=True) for one in batch.records]; both.release(batch.count)"
HEIR_ENDS = "[both.acquire(timeout=60.0) for _ in range(2)]; assert engine.stop(30.0)"


def modules() -> list[Path]:
    return [one for one in SOURCE.rglob("*.py") if "examples" not in one.relative_to(SOURCE).parts]


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {one for one in archive.namelist() if ".dist-info/" not in one}
    expected = {str(one.relative_to(ROOT)) for one in modules()} | {"pipeline/py.typed"}
    assert held == expected


def test_every_module_can_be_imported_without_django(python: Path, tmp_path: Path) -> None:
    count = run(python, "-I", "-W", "error", "-c", EVERY_MODULE, cwd=tmp_path)
    # Without the package itself; folders are packages that count as modules.
    assert int(count) == len(modules()) - 1
    found = run(
        python, "-I", "-c", "import importlib.util as u; print(u.find_spec('django'))", cwd=tmp_path
    )
    assert found.strip() == "None"


def test_importing_starts_no_thread(python: Path, tmp_path: Path) -> None:
    code = "import threading, pipeline; print(threading.active_count())"
    assert run(python, "-I", "-c", code, cwd=tmp_path).strip() == "1"


def test_the_first_example_batches_into_a_list(python: Path, tmp_path: Path) -> None:
    example = SOURCE / "examples" / "batch_into_list.py"
    assert run(python, "-I", "-W", "error", example, cwd=tmp_path) == "[10, 10, 5]\n"
    code = [one for one in example.read_text().splitlines() if one]
    assert len(code) <= 20


def test_the_second_example_tries_again_until_the_file_can_be_written(
    python: Path, tmp_path: Path
) -> None:
    out = tmp_path / "missing" / "records.ndjson"
    example = SOURCE / "examples" / "batch_to_file.py"
    said = run(python, "-I", "-W", "error", example, out, cwd=tmp_path)
    assert "attempt 1: " in said
    assert said.endswith(f"25 lines in {out}\n")
    assert sorted(out.read_text().splitlines()) == sorted(f'{{"number":{n}}}' for n in range(25))


def test_the_second_example_without_a_path_says_where_it_wrote(
    python: Path, tmp_path: Path
) -> None:
    example = SOURCE / "examples" / "batch_to_file.py"
    said = run(python, "-I", "-W", "error", example, cwd=tmp_path)
    told = re.search(r"^25 lines in (.+)$", said, re.MULTILINE)
    assert told is not None, said
    out = Path(told[1])
    assert len(out.read_bytes().splitlines()) == 25
    shutil.rmtree(out.parent.parent)


def test_its_types_are_seen_by_those_who_use_it(python: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", tmp_path)
    said = run(*mypy, "--python-executable", python, "consumer.py", cwd=tmp_path)
    assert 'Revealed type is "bool"' in said or 'Revealed type is "builtins.bool"' in said


def test_it_is_typed_strictly_by_itself(tmp_path: Path) -> None:
    settings = SOURCE / "pyproject.toml"
    mypy = (sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", tmp_path)
    assert tomllib.loads(settings.read_text())["tool"]["mypy"]["strict"] is True
    assert "Success" in run(*mypy, "pipeline", cwd=ROOT)


def test_it_imports_nothing_but_what_it_says_it_needs() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=~ ]", one)[0] for one in project["dependencies"]}
    imported: set[str] = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"pipeline"} == needed


def test_it_has_the_programs_own_version_and_python() -> None:
    own = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    program = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert own["version"] == program["version"]
    assert own["requires-python"] == program["requires-python"]


def test_what_a_killed_process_had_in_its_log_is_delivered_by_the_next(
    python: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    killed = ("-c", LIFE.format(log_id="first-life", takes="raise OSError('down')", end=KILLED))
    # `os._exit` after the acknowledgement is a kill that needs no second process.
    run(python, "-I", "-W", "error", *killed, logs, cwd=tmp_path)
    heir = ("-c", LIFE.format(log_id="second-life", takes=TAKES, end=HEIR_ENDS))
    said = run(python, "-I", "-W", "error", *heir, logs, cwd=tmp_path)
    assert sorted(said.split()) == ["from-first-life", "from-second-life"]
