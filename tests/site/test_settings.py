"""The settings: sources and their order, and every mistake as a numbered finding."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from control.config.settings import MIB, Settings, load

ROOT = Path(__file__).resolve().parents[2]


def ids(settings: Settings) -> list[str]:
    return [mistake.id for mistake in settings.mistakes]


def test_defaults_have_no_mistakes() -> None:
    settings = load({})
    assert settings.mistakes == ()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert settings.ingest.max_body_bytes == 32 * MIB
    assert settings.pipeline.max_records == 5000


def test_environment_wins_over_file_wins_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "collector.toml"
    file.write_text('[server]\nport = 1111\nthreads = 16\n[ingest]\nmax_body_bytes = "8MiB"\n')
    settings = load({"PORT": "2222"}, file)
    assert settings.mistakes == ()
    assert settings.server.port == 2222
    assert settings.server.threads == 16
    assert settings.ingest.max_body_bytes == 8 * MIB
    assert settings.server.workers == 1


def test_an_empty_variable_is_as_if_unset() -> None:
    assert load({"PORT": "", "COLLECTOR_DATABASE_URL": ""}) == load({})


@pytest.mark.parametrize(
    ("variable", "text", "concern", "name", "value"),
    [
        ("HOST", "0.0.0.0", "server", "host", "0.0.0.0"),
        ("COLLECTOR_DATA_DIR", "/srv/x", "server", "data_dir", Path("/srv/x")),
        ("COLLECTOR_ALLOWED_HOSTS", "a.example, b.example,", "server", "allowed_hosts",
         ("a.example", "b.example")),
        ("COLLECTOR_PUBLIC_METRICS", "Yes", "server", "public_metrics", True),
        ("COLLECTOR_MAX_BODY_BYTES", "16 MiB", "ingest", "max_body_bytes", 16 * MIB),
        ("COLLECTOR_MAX_BODY_BYTES", "2_000_000", "ingest", "max_body_bytes", 2_000_000),
        ("COLLECTOR_MAX_BODY_BYTES", "20MB", "ingest", "max_body_bytes", 20_000_000),
        ("COLLECTOR_WAL_DIRECTORY", "/srv/log", "log", "directory", Path("/srv/log")),
        ("COLLECTOR_WAL_FSYNC", "never", "log", "fsync", "never"),
        ("COLLECTOR_WAL_FSYNC_INTERVAL_S", "0.5", "log", "fsync_interval_s", 0.5),
        ("COLLECTOR_WAL_SEGMENT_BYTES", "1MiB", "log", "segment_bytes", MIB),
        ("COLLECTOR_WAL_CACHE_BYTES", "8MiB", "log", "cache_bytes", 8 * MIB),
        ("COLLECTOR_WAL_MAX_BYTES", "2GiB", "log", "max_bytes", 2048 * MIB),
        ("COLLECTOR_WAL_ADOPT_EVERY_S", "0.25", "log", "adopt_every_s", 0.25),
        ("COLLECTOR_DEFAULT_ACK", "stored", "ingest", "default_ack", "stored"),
        ("COLLECTOR_MAX_RECORDS", "7", "ingest", "max_records", 7),
        ("COLLECTOR_PIPELINE_MAX_RECORDS", "7", "pipeline", "max_records", 7),
        ("COLLECTOR_LOG_LEVEL", "DEBUG", "logging", "level", "DEBUG"),
        ("COLLECTOR_SINK_POLL_S", "0.5", "sinks", "poll_s", 0.5),
        ("COLLECTOR_TRACE_SAMPLE_RATIO", "0.25", "tracing", "sample_ratio", 0.25),
    ],
)  # fmt: skip
def test_variables_are_read(
    variable: str, text: str, concern: str, name: str, value: object
) -> None:
    settings = load({variable: text})
    assert getattr(getattr(settings, concern), name) == value
    assert not [mistake for mistake in settings.mistakes if mistake.fatal]


def test_the_log_lies_in_the_data_directory_unless_it_is_put_elsewhere() -> None:
    assert load({"COLLECTOR_DATA_DIR": "/srv/x"}).wal_directory == Path("/srv/x/wal")
    placed = load({"COLLECTOR_DATA_DIR": "/srv/x", "COLLECTOR_WAL_DIRECTORY": "/fast/log"})
    assert placed.wal_directory == Path("/fast/log")


def test_an_fsync_that_no_answer_waits_for_is_fine_where_none_promises_it() -> None:
    settings = load({"COLLECTOR_WAL_FSYNC": "never", "COLLECTOR_DEFAULT_ACK": "memory"})
    assert settings.mistakes == ()


def test_nested_settings_are_read_from_both_sources(tmp_path: Path) -> None:
    file = tmp_path / "collector.toml"
    file.write_text("[pipeline.retry]\nbase_s = 0.25\nmax_attempts = 4\n")
    settings = load({"COLLECTOR_PIPELINE_RETRY_CAP_S": "9"}, file)
    assert settings.mistakes == ()
    retry = settings.pipeline.retry
    assert (retry.base_s, retry.max_attempts, retry.cap_s) == (0.25, 4, 9)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"PORT": "http"}, "collector.E003"),
        ({"PORT": "70000"}, "collector.E003"),
        ({"COLLECTOR_WORKERS": "0"}, "collector.E003"),
        ({"COLLECTOR_PUBLIC_METRICS": "perhaps"}, "collector.E003"),
        ({"COLLECTOR_READ_DEADLINE_S": "nan"}, "collector.E003"),
        ({"COLLECTOR_READ_DEADLINE_S": "inf"}, "collector.E003"),
        ({"COLLECTOR_MAX_BODY_BYTES": "12 parsecs"}, "collector.E003"),
        ({"COLLECTOR_LOG_LEVEL": "LOUD"}, "collector.E003"),
        ({"COLLECTOR_DEFAULT_ACK": "paper"}, "collector.E003"),
        ({"COLLECTOR_WAL_FSYNC": "sometimes"}, "collector.E003"),
        ({"COLLECTOR_WAL_SEGMENT_BYTES": "1KiB"}, "collector.E003"),
        ({"COLLECTOR_WAL_FSYNC_INTERVAL_S": "0"}, "collector.E003"),
        ({"COLLECTOR_PIPELINE_LOW_WATERMARK": "0.9"}, "collector.E004"),
        ({"COLLECTOR_PIPELINE_MAX_RECORDS": "0"}, "collector.E004"),
        ({"COLLECTOR_RESERVED_THREADS": "32"}, "collector.E010"),
        ({"COLLECTOR_MAX_RECORD_BYTES": "64MiB"}, "collector.E011"),
        ({"COLLECTOR_MAX_INFLATED_BYTES": "1MiB"}, "collector.E012"),
        ({"COLLECTOR_GATE_BYTES": "33MiB"}, "collector.E013"),
        ({"HOST": "0.0.0.0", "COLLECTOR_REQUIRE_KEY": "never"}, "collector.E014"),
        ({"COLLECTOR_DATABASE_URL": "mysql://root@db/x"}, "collector.E015"),
        ({"COLLECTOR_RECORDS_DATABASE_URL": "postgresql://[broken"}, "collector.E015"),
        ({"COLLECTOR_OTLP_ENDPOINT": "127.0.0.1:4318"}, "collector.E016"),
        ({"COLLECTOR_WAL_MAX_BYTES": "95MiB"}, "collector.E017"),
        ({"COLLECTOR_WAL_CACHE_BYTES": "3MiB"}, "collector.E018"),
        ({"COLLECTOR_WAL_SEGMENT_BYTES": "1000001"}, "collector.E019"),
        ({"COLLECTOR_THREDS": "8"}, "collector.W001"),
        ({"HOST": "0.0.0.0"}, "collector.W002"),
        ({"COLLECTOR_WAL_MAX_BYTES": "100MiB", "COLLECTOR_PIPELINE_BACKLOG_MAX_BYTES": "1GiB"},
         "collector.W003"),
        ({"COLLECTOR_WAL_FSYNC": "interval"}, "collector.W004"),
        ({"COLLECTOR_WAL_FSYNC": "never"}, "collector.W004"),
    ],
)  # fmt: skip
def test_each_mistake_has_a_number_and_a_hint(environ: dict[str, str], found: str) -> None:
    settings = load(environ)
    assert found in ids(settings)
    mistake = next(item for item in settings.mistakes if item.id == found)
    assert mistake.hint
    assert mistake.fatal == (".E" in found)


@pytest.mark.parametrize("found", ["[server", "[server]\nport = ", "\xff\xfe", None])
def test_a_broken_file_is_a_mistake_and_no_traceback(tmp_path: Path, found: str | None) -> None:
    file = tmp_path / "collector.toml"
    if found is not None:
        file.write_bytes(found.encode("latin-1"))
    settings = load({}, file)
    assert ids(settings) == ["collector.E001"]
    assert dataclasses.replace(settings, mistakes=()) == load({})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[servr]\nport = 1\n", "Did you mean server?"),
        ("[server]\nprot = 1\n", "Did you mean port?"),
        ("[pipeline.retry]\nbase = 1\n", "Did you mean base_s?"),
        ("server = 3\n", "Use a table."),
    ],
)
def test_unknown_names_in_the_file_are_named(tmp_path: Path, text: str, hint: str) -> None:
    file = tmp_path / "collector.toml"
    file.write_text(text)
    settings = load({}, file)
    assert [(item.id, item.hint) for item in settings.mistakes] == [("collector.E002", hint)]


def test_a_misspelt_variable_is_answered_with_the_near_one() -> None:
    (mistake,) = load({"COLLECTOR_THREDS": "8"}).mistakes
    assert "COLLECTOR_THREADS" in mistake.hint


@pytest.mark.parametrize(
    ("environ", "message", "hint"),
    [
        (
            {"PORT": "eighty"},
            "PORT = 'eighty': expected a whole number.",
            "Correct it, or unset it to use the default, 8000.",
        ),
        (
            {"COLLECTOR_PUBLIC_METRICS": "per\x1bhaps"},
            "COLLECTOR_PUBLIC_METRICS = 'per\\x1bhaps': expected true or false.",
            "Correct it, or unset it to use the default, false.",
        ),
        (
            {"COLLECTOR_MAX_BODY_BYTES": "pg://u:p@h"},
            "COLLECTOR_MAX_BODY_BYTES: expected a number of bytes such as 1048576 or 32MiB.",
            "Correct it, or unset it to use the default, 33554432.",
        ),
        (
            {"COLLECTOR_DATABASE_URL": "mysql://user:hidden@db/x"},
            "COLLECTOR_DATABASE_URL is not a SQLite or PostgreSQL URL.",
            "postgresql://user:password@host:5432/name, or sqlite:///directory. "
            "Correct it, or unset it to use SQLite in the data directory.",
        ),
    ],
)
def test_a_mistake_says_what_was_written_and_a_way_out(
    environ: dict[str, str], message: str, hint: str
) -> None:
    (mistake,) = load(environ).mistakes
    assert (mistake.message, mistake.hint) == (message, hint)


def test_a_secret_setting_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "collector.toml"
    file.write_text("[server]\nsecret_key = 12345\nport = 'x'\n")
    messages = [mistake.message for mistake in load({}, file).mistakes]
    assert messages == [
        "[server] port = 'x': expected a whole number.",
        "[server] secret_key: expected text.",
    ]


def test_secrets_appear_in_no_message_and_no_repr() -> None:
    secret = "s3cret-in-the-wrong-place"
    settings = load(
        {
            "COLLECTOR_DATABASE_URL": f"mysql://user:{secret}@db/x",
            "COLLECTOR_SECRET_KEY": secret,
            "PORT": secret,
        }
    )
    assert len(settings.mistakes) == 2
    assert secret not in repr(settings)


def test_the_example_environment_names_exactly_the_settings() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    shown = {
        match[1]: match[2] for line in lines if (match := re.fullmatch(r"# ([A-Z_]+)=(.*)", line))
    }
    settings = load({**shown, "COLLECTOR_CONFIG": ""})
    assert settings == load({})
    # Besides the settings: the file's own path and the first key.
    assert len(shown) - 2 == _count(Settings())


def test_the_example_file_shows_the_defaults() -> None:
    path = ROOT / "collector.example.toml"
    assert load({}, path) == load({})
    text = path.read_text()
    tomllib.loads(text)
    for concern in dataclasses.fields(Settings):
        if concern.name != "mistakes":
            assert f"[{concern.name}]" in text


def _count(value: object) -> int:
    total = 0
    for item in dataclasses.fields(value):  # type: ignore[arg-type]
        if item.name == "mistakes":
            continue
        inner = getattr(value, item.name)
        total += _count(inner) if dataclasses.is_dataclass(inner) else 1
    return total
