"""Finding kinds by name and by dotted path, and trying one from any thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from django.conf import settings

from healthmon.probes import trial
from healthmon.probes.registry import BUILT_IN, KindError, kind_names, kind_of, kinds, problems
from healthmon.probes.trial import try_probe
from tests.healthmon.probes.listeners.tcp import Listener, answers, silent

THIRD = "tests.healthmon.probes.thirdparty.KIND"


@pytest.fixture
def allow(monkeypatch):
    def only(*paths):
        collector = settings.COLLECTOR
        monitoring = replace(collector.monitoring, probe_kinds=paths)
        monkeypatch.setattr(settings, "COLLECTOR", replace(collector, monitoring=monitoring))

    return only


def test_every_built_in_kind_is_there():
    assert [kind.name for kind in kinds()] == list(BUILT_IN)
    assert [name for name, _ in kind_names()] == list(BUILT_IN)
    for name in BUILT_IN:
        assert kind_of(name).name == name


def test_a_third_partys_kind_needs_its_dotted_path_in_the_settings(allow):
    with pytest.raises(KindError, match="COLLECTOR_PROBE_KINDS names no others"):
        kind_of(THIRD)
    allow(THIRD)
    assert kind_of(THIRD).name == "greeting"
    assert kind_names()[-1] == (THIRD, kind_of(THIRD))
    assert problems() == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing", "not a dotted path"),
        ("no.such.module.KIND", "cannot be imported: ModuleNotFoundError"),
        ("tests.healthmon.probes.thirdparty.NONE", "has no ProbeKind named NONE"),
        ("tests.healthmon.probes.thirdparty.probe", "has no ProbeKind named probe"),
    ],
)
def test_a_path_that_leads_nowhere_names_the_setting(allow, path, words):
    allow(path)
    with pytest.raises(KindError) as caught:
        kind_of(path)
    assert str(caught.value).startswith("COLLECTOR_PROBE_KINDS: ")
    assert words in str(caught.value)
    assert problems() == [str(caught.value)]
    assert [name for name, _ in kind_names()] == list(BUILT_IN)  # the others are not affected


# Trials


def test_trials_run_in_several_threads_at_once():
    together = threading.Barrier(4)
    with Listener(answers(b"hello")) as listener:

        def one(_):
            together.wait(180)
            return try_probe("tcp", listener.where, {"expect": "hello"}, 30)

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(one, range(4)))
    assert [(result.outcome, result.error) for result in results] == [("ok", "")] * 4


def test_a_trial_ends_at_its_deadline():
    with Listener(silent) as listener:
        result = try_probe("tcp", listener.where, {"expect": "never"}, 0.1)
    assert result.error == (
        "no answer within 0.1 s: still waiting for a reply, with 0 bytes received"
    )
    assert result.total_ms >= 100


@pytest.mark.parametrize(
    ("kind", "address", "options", "words"),
    [
        ("nope", "x", {}, "no kind of probe 'nope'"),
        ("tcp", "x", {}, "lacks a port"),
        ("tcp", "x:1", {"send": 3}, "send: expected `str`"),
        ("heartbeat", "", {}, "not probed"),
    ],
)
def test_what_is_wrong_with_a_trial_is_its_result(kind, address, options, words):
    result = try_probe(kind, address, options, 5)
    assert result.outcome == "failed"
    assert words in result.error


def test_a_trial_obeys_the_installations_policy(monkeypatch, own_tools):
    collector = settings.COLLECTOR
    monitoring = replace(collector.monitoring, probe_deny=("127.0.0.0/8",))
    monkeypatch.setattr(settings, "COLLECTOR", replace(collector, monitoring=monitoring))
    with Listener(silent) as listener:
        result = try_probe("tcp", listener.where, {}, 5)
        assert "COLLECTOR_PROBE_DENY" in result.error
        assert listener.accepted == 0
    broken = replace(collector.monitoring, probe_deny=("ten",))
    monkeypatch.setattr(settings, "COLLECTOR", replace(collector, monitoring=broken))
    trial.forget_tools()
    assert "COLLECTOR_PROBE_DENY: 'ten'" in try_probe("tcp", "127.0.0.1:1", {}, 5).error


def test_a_kind_that_raises_is_a_failure_without_its_secrets(allow, monkeypatch):
    allow(THIRD)
    kind = kind_of(THIRD)

    async def careless(request, tools):
        raise RuntimeError(f"cannot log in\nwith {request.options.password.reveal()} " + "x" * 9000)

    result = try_probe(replace(kind, probe=careless), "h:1", {"password": "hunter2hunter2"}, 5)
    assert result.outcome == "failed"
    assert result.error.startswith("RuntimeError: cannot log in with … xxx")
    assert len(result.error) == 500
