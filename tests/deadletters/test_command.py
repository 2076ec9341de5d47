"""`manage.py redrive`: which letters, what it prints, how it ends."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from sinks.deadletters import store
from sinks.deadletters.runner import Runner
from sinks.management.commands.redrive import Command, moment
from sinks.models import DeadLetter, RedriveTask, SinkConfig
from tests.deadletters.letters import FakeEngine, letters

pytestmark = pytest.mark.django_db(transaction=True)

WAIT_S = 180.0


@pytest.fixture
def sink():
    SinkConfig.objects.all().delete()
    row = SinkConfig.objects.create(name="kept", backend="sinks.backends.memory.MemorySink")
    return str(row.pk)


def run(*args: str, engine: FakeEngine | None = None, **named: Any) -> tuple[Any, str, int]:
    """What it printed (as JSON), what it said, and its exit status; the engine serves waits."""
    out, err = io.StringIO(), io.StringIO()
    runner = Runner(owner="one", engine=lambda: engine, now=lambda: datetime.now(UTC))

    def served(_seconds: float) -> None:
        runner.look()
        runner.join(WAIT_S)

    command = Command(sleep=served, **named)
    status = 0
    try:
        call_command(command, "--sink", "kept", "--json", *args, stdout=out, stderr=err)
    except SystemExit as exit:
        status = int(str(exit.code))
    return json.loads(out.getvalue()), err.getvalue(), status


def test_all_are_sent_and_waited_for(sink):
    store.keep(letters(5, sink))
    engine = FakeEngine()
    found, said, status = run("--all", "--wait", engine=engine)
    assert (found["state"], found["stored"], found["refused"], status) == ("done", 5, 0, 0)
    assert "No process with pipelines" in said
    assert len(engine.stored) == 5


def test_what_is_refused_again_is_the_exit_status(sink):
    some = letters(3, sink)
    store.keep(some)
    engine = FakeEngine(refuse=lambda one: one.record_id == some[0].record_id)
    found, _, status = run("--all", "--wait", engine=engine)
    assert (found["stored"], found["refused"], status) == (2, 1, 1)


def test_it_does_not_wait_for_ever(sink):
    store.keep(letters(3, sink))
    ticks = iter(range(1_000))
    found, _, status = run("--all", "--wait", "--timeout", "3", monotonic=lambda: next(ticks))
    assert (found["state"], status) == ("prepared", 1)


def test_the_letters_are_chosen(sink):
    store.keep(letters(2, sink), now=datetime.now(UTC) - timedelta(days=2))
    store.keep(letters(3, sink, reason="age"))
    store.keep(letters(4, "other"))
    for args, count in (
        (("--all",), 5),
        (("--reason", "age"), 3),
        (("--since", "24h"), 3),
        (("--since", "2020-01-01T00:00:00"), 5),
        (("--id", str(DeadLetter.objects.filter(sink=sink).order_by("pk")[0].pk)), 1),
        (("--id", str(DeadLetter.objects.filter(sink="other")[0].pk)), 0),
    ):
        assert run(*args, "--dry-run")[0]["letters"] == count, args
    assert RedriveTask.objects.count() == 0


def test_nothing_to_send_is_no_failure(sink):
    found, said, status = run("--all", "--wait")
    assert (found["task"], status) == (None, 0)
    assert said == ""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "say which letters"),
        (("--all", "--id", "1"), "exclude"),
        (("--since", "yesterday"), "neither a time"),
        (("--id", *map(str, range(1_001))), "at most"),
    ],
)
def test_what_cannot_be_meant_is_refused(sink, args, said):
    with pytest.raises(CommandError, match=said):
        run(*args)


def test_an_unknown_sink_is_named(sink):
    with pytest.raises(CommandError, match="there is no sink 'nowhere'; there are: kept"):
        call_command("redrive", "--sink", "nowhere", "--all")
    store.keep(letters(1, "gone"))
    with pytest.raises(CommandError, match="is gone"):
        call_command("redrive", "--sink", "name of gone", "--all")


def test_people_read_a_line(sink):
    store.keep(letters(3, sink))
    out, err = io.StringIO(), io.StringIO()
    call_command("redrive", "--sink", "kept", "--all", stdout=out, stderr=err)
    assert "prepared; 0 stored" in out.getvalue()
    assert "of 3" in out.getvalue()
    assert "it begins when one does" in err.getvalue()


@pytest.mark.parametrize("text", ["90x", "", "99999999999999d", "2026-13-01"])
def test_a_moment_that_is_none(text):
    with pytest.raises(Exception, match="neither a time"):
        moment(text)
