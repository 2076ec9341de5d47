"""Typed options, the registry, and what keeps secrets secret."""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from pipeline.errors import (
    PartialFailure,
    PermanentError,
    RetryableError,
    SinkError,
    SinkFault,
)
from sinks import secrets
from sinks.backends.null import NullSink
from sinks.base import BaseSink
from sinks.checks import check_backends
from sinks.guard import GuardedSink
from sinks.options import (
    NoOptions,
    OptionsError,
    Secret,
    SinkOptions,
    decode_options,
    describe_options,
    secret_names,
)
from sinks.registry import BUILT_IN, BackendError, available_backends, load_backend, make_sink
from tests.sinks.records import batch, records


class Options(SinkOptions, frozen=True, kw_only=True):
    token: Secret
    size_bytes: Annotated[int, Meta(ge=1, le=10, description="How big.")] = 3
    wait_s: Annotated[float, Meta(gt=0)] | None = None
    mode: Literal["a", "b"] = "a"
    names: list[str] = []
    labels: dict[str, str] = {}
    deep: dict[str, int] = {}
    fast: bool = False

    def __post_init__(self) -> None:
        if self.mode == "b" and self.fast:
            raise ValueError("fast: not in mode b")


# --- options -------------------------------------------------------------------------------


def test_options_describe_themselves():
    fields = {field.name: field for field in describe_options(Options)}
    assert list(fields) == list(Options.__struct_fields__)
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds == {
        "token": "secret",
        "size_bytes": "int",
        "wait_s": "float",
        "mode": "choice",
        "names": "list",
        "labels": "mapping",
        "deep": "json",
        "fast": "bool",
    }
    size = fields["size_bytes"]
    assert (size.default, size.minimum, size.maximum, size.help) == (3, 1, 10, "How big.")
    assert fields["token"].required
    assert fields["wait_s"].optional
    assert fields["mode"].choices == ("a", "b")
    assert fields["names"].default == []
    assert secret_names(Options) == {"token"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "missing option `token`"),
        ({"token": 5}, "token: expected `str`"),
        ({"token": "t", "size_bytes": 11}, "size_bytes: expected `int` <= 10"),
        ({"token": "t", "size_bytes": "3"}, "size_bytes: expected `int`, got `str`"),
        ({"token": "t", "mode": "c"}, "mode: invalid enum value 'c'"),
        ({"token": "t", "x": 1, "y": 2}, "unknown options x, y"),
        ({"token": "t", "mode": "b", "fast": True}, "fast: not in mode b"),
        ({"token": "t", "names": [1]}, "names"),
    ],
)
def test_wrong_options_are_named(values, words):
    with pytest.raises(OptionsError) as caught:
        decode_options(Options, values)
    assert words in str(caught.value)


def test_a_secret_shows_itself_to_nobody():
    options = decode_options(Options, {"token": "hunter2"})
    assert options.token.reveal() == "hunter2"
    assert "hunter2" not in f"{options!r} {options.token!r} {options.token}"
    assert options.token == Secret("hunter2")
    assert options.token != Secret("other")
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")


# --- the registry --------------------------------------------------------------------------


def test_the_built_in_sinks_can_be_chosen():
    assert [backend.path for backend in available_backends()] == list(BUILT_IN)
    assert check_backends() == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("os.path.join", "is not allowed"),
        ("sinks.base.BaseSink", "is not allowed"),
        ("sinks.backends.nosuch.Sink", "cannot be imported: ModuleNotFoundError"),
        ("sinks.backends.null.Nosuch", "has no Nosuch"),
        ("sinks.backends.null.Batch", "is not a subclass"),
        ("sinks.backends.null", "is not a subclass"),
        ("", "is not allowed"),
    ],
)
def test_a_backend_that_cannot_be_used_names_the_row(path, words):
    with pytest.raises(BackendError, match=words) as caught:
        load_backend(path, row="archive")
    assert 'sink "archive"' in str(caught.value)


def test_a_third_partys_sink_is_used_once_it_is_allowed(settings, monkeypatch):
    module: Any = types.ModuleType("thirdparty_sinks")

    class Remote(BaseSink[Options]):
        Options = Options
        label = "Remote"

    module.Remote = Remote
    monkeypatch.setitem(sys.modules, "thirdparty_sinks", module)
    with pytest.raises(BackendError, match="not allowed"):
        make_sink("thirdparty_sinks.Remote", {"token": "t"}, name="x")
    allow(settings, "sinks.backends.*", "thirdparty_sinks.Remote")
    assert isinstance(make_sink("thirdparty_sinks.Remote", {"token": "t"}, name="x"), Remote)
    assert available_backends()[-1].label == "Remote"
    with pytest.raises(BackendError, match='sink "x": missing option `token`'):
        make_sink("thirdparty_sinks.Remote", {}, name="x")
    allow(settings, "thirdparty_sinks.Nosuch")
    assert available_backends() == []
    assert [found.id for found in check_backends()] == ["sinks.E001"]


def allow(settings, *paths: str) -> None:
    sinks = dataclasses.replace(settings.COLLECTOR.sinks, allowed_paths=paths)
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, sinks=sinks)


def test_a_module_that_fails_while_it_is_imported_is_told(tmp_path, monkeypatch, settings):
    (tmp_path / "exploding_sink.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="ZeroDivisionError"):
        load_backend("exploding_sink.Sink", allowed=["exploding_sink.*"])


# --- secrets -------------------------------------------------------------------------------


def test_secrets_are_read_back_with_the_same_key_only(settings):
    token = secrets.encrypt("hunter2")
    assert "hunter2" not in token
    assert secrets.encrypt("hunter2") != token
    assert secrets.decrypt(token, option="dsn") == "hunter2"
    first = settings.SECRET_KEY
    settings.SECRET_KEY = "another-key-that-is-long-enough-to-be-one-000000"
    with pytest.raises(secrets.SecretError, match=r"dsn: .*SECRET_KEY has changed"):
        secrets.decrypt(token, option="dsn")
    settings.SECRET_KEY_FALLBACKS = [first]
    assert secrets.decrypt(token, option="dsn") == "hunter2"


def test_references_are_resolved_from_the_environment():
    environ = {"DSN": "value"}
    assert secrets.resolve("env:DSN", option="dsn", environ=environ) == "value"
    assert secrets.resolve("plain", option="dsn", environ=environ) == "plain"
    assert secrets.resolve("env:not a name", option="dsn", environ=environ) == "env:not a name"
    with pytest.raises(secrets.SecretError, match="dsn: environment variable NOSUCH is not set"):
        secrets.resolve("env:NOSUCH", option="dsn", environ=environ)


def test_redaction_takes_the_longest_first_and_leaves_fragments():
    text = "dsn postgresql://u:hunter2@h password hunter2 a"
    assert (
        secrets.redact(text, ["hunter2", "postgresql://u:hunter2@h", "a"])
        == "dsn ******** password ******** a"
    )


class Leaking(BaseSink[Options]):
    Options = Options
    error: Exception = RuntimeError("connecting with hunter2 failed")

    def open(self) -> None:
        raise self.error

    def write(self, batch):
        raise self.error

    def probe(self, batch):
        raise self.error

    def close(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("with hunter2"), RetryableError),
        (RetryableError("with hunter2", retry_after_s=7), RetryableError),
        (PermanentError("with hunter2"), PermanentError),
        (SinkFault("with hunter2"), SinkFault),
        (PartialFailure({3: "with hunter2"}, already_stored=2), PartialFailure),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_no_error_of_a_sink_shows_its_secret(error, kind):
    sink = Leaking(decode_options(Options, {"token": "hunter2"}), name="x")
    sink.error = error
    guarded = GuardedSink(sink)
    one = batch(records(1))
    for call in (
        guarded.open,
        lambda: guarded.write(one),
        lambda: guarded.probe(one),
        guarded.close,
    ):
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        shown = f"{caught.value} {caught.value.__dict__}"
        assert "hunter2" not in shown
        assert caught.value.__suppress_context__
    assert getattr(caught.value, "retry_after_s", None) == getattr(error, "retry_after_s", None)
    if kind is PartialFailure:
        assert caught.value.failures == {3: "with ********"}
        assert caught.value.already_stored == 2


class OwnPermanent(PermanentError):
    def __init__(self, table: str, row: int) -> None:
        super().__init__(f"row {row} of {table}")


class OwnBusy(RetryableError):
    def __init__(self, *, after: float) -> None:
        super().__init__("busy", retry_after_s=after)


class OwnPartial(PartialFailure):
    def __init__(self, *rows: int) -> None:
        super().__init__(dict.fromkeys(rows, "refused"))


class OwnFault(SinkFault):
    def __init__(self, table: str, *, hint: str) -> None:
        super().__init__(f"no {table}: {hint}")


class Undecided(SinkError):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")


@pytest.mark.parametrize("secret", ["", "hunter2"], ids=["plain", "with a secret"])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OwnPermanent("t", 3), PermanentError("row 3 of t")),
        (OwnBusy(after=7.0), RetryableError("busy", retry_after_s=7.0)),
        (OwnPartial(2, 5), PartialFailure({2: "refused", 5: "refused"})),
        (OwnFault("t", hint="make it"), SinkFault("no t: make it")),
        (Undecided(4, "strange"), RetryableError("4 strange")),
        (ValueError("x"), RetryableError("ValueError: x")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_sinks_own_error_class_reads_as_the_nearest_of_the_engine(error, seen, secret):
    sink = Leaking(decode_options(Options, {"token": secret}), name="x")
    sink.error = error
    with pytest.raises(type(seen)) as caught:
        GuardedSink(sink).write(batch(records(1)))
    assert type(caught.value) is type(seen)
    assert str(caught.value) == str(seen)
    assert caught.value.__dict__ == seen.__dict__
    assert caught.value.__cause__ is (None if secret else error)


def test_a_sink_that_cannot_be_tried_says_so():
    class Plain(BaseSink[NoOptions]):
        pass

    with pytest.raises(SinkFault, match="Plain can only be opened"):
        Plain(NoOptions()).probe(batch(records(1)))
    with pytest.raises(NotImplementedError):
        Plain(NoOptions()).write(batch(records(1)))
    assert "Null" in NullSink.label
