"""What benchmarks compare side by side: buffers that lose nothing, drawings, and small runs."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import cli, plot, wire
from benchmarks.batchers import WAYS
from benchmarks.buffers import BUFFERS, Buffer
from benchmarks.catalogue import SCENARIOS
from benchmarks.comparison import Comparison, Panel
from benchmarks.plan import Plan
from benchmarks.scenarios import batcher, buffer, serialization, sinks, sizes
from benchmarks.tally import Store, percentile
from ingest.wire.formats import Format

WAIT_S = 180.0
SVG = "{http://www.w3.org/2000/svg}"

every_buffer = pytest.mark.parametrize("kind", BUFFERS.values(), ids=BUFFERS)


def comparison(**options) -> Comparison:
    panel = Panel(title="Speed", unit="records/s", **options)
    panel.add("slow <&>", [100.0, 90.0, 110.0], group="one")
    panel.add("fast", [1_234_567.0], group="one")
    panel.add("fast", [0.5], group="two")
    return Comparison(name="thing", title="Some & others", setting="one machine", panels=[panel])


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# --- drawing


def test_a_comparison_is_drawn_with_its_figures(tmp_path: Path) -> None:
    path = plot.write(comparison(), tmp_path / "new")
    assert path == tmp_path / "new/benchmark-thing.svg"
    drawn = path.read_text()
    said = texts(drawn)
    assert {"Some & others", "one machine", "slow <&>", "100", "1,234,567", "0.50"} <= set(said)
    assert "more is better" in said
    # For who cannot see it.
    described = ElementTree.fromstring(drawn).findtext(f"{SVG}desc")
    assert "Speed (one): slow <&> 100 records/s, fast 1,234,567 records/s" in (described or "")


def widths(svg: str) -> list[float]:
    bars = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [float(bar.get("width", "")) for bar in bars]


def test_bars_are_as_long_as_their_figures() -> None:
    panel = Panel(title="t", unit="u")
    for value in (50.0, 100.0):
        panel.add(str(value), [value])
    half, whole = widths(plot.svg(Comparison(name="n", title="t", setting="", panels=[panel])))
    assert whole == pytest.approx(2 * half)


def test_a_logarithmic_scale_shows_the_least_as_well() -> None:
    panel = Panel(title="t", unit="u", log=True, less_is_better=True)
    for value in (2.0, 20.0, 200.0):
        panel.add(str(value), [value])
    drawn = plot.svg(Comparison(name="n", title="t", setting="", panels=[panel]))
    low, middle, high = widths(drawn)
    assert low > 1
    assert middle - low == pytest.approx(high - middle, abs=0.2)
    assert "less is better, logarithmic" in texts(drawn)


def test_the_best_of_each_group_stands_out() -> None:
    drawn = plot.svg(comparison())
    bars = [bar.get("class") for bar in ElementTree.fromstring(drawn).iter(f"{SVG}rect")]
    assert bars == ["bar", "best", "bar"]


# --- buffers


@every_buffer
@pytest.mark.parametrize(("producers", "size"), [(1, 1), (4, 1), (4, 10)])
def test_a_buffer_hands_over_each_item_once_and_in_order(
    kind: Callable[[int], Buffer], producers: int, size: int
) -> None:
    # Checked inside; the room is far smaller than what goes through it.
    assert buffer.hand_over(kind(16), items=4_000, producers=producers, size=size) > 0


@every_buffer
def test_a_full_buffer_makes_its_producer_wait(kind: Callable[[int], Buffer]) -> None:
    made = kind(16)
    for n in range(16):
        made.put(n)
    passed = threading.Event()

    def one_more() -> None:
        made.put(16)
        passed.set()

    producer = threading.Thread(target=one_more, daemon=True)
    producer.start()
    assert not passed.wait(0.05)
    taken = made.take(16)
    assert passed.wait(WAIT_S)
    while len(taken) < 17:
        taken += made.take(17 - len(taken))
    assert taken == list(range(17))
    producer.join(WAIT_S)


@every_buffer
def test_two_takers_get_everything_between_them(kind: Callable[[int], Buffer]) -> None:
    made, got = kind(8), [[], []]  # type: ignore[var-annotated]

    def take(mine: list[int | None]) -> None:
        while mine[-1:] != [None]:
            mine += made.take(1)

    takers = [threading.Thread(target=take, args=(mine,), daemon=True) for mine in got]
    for taker in takers:
        taker.start()
    for item in [*range(2_000), None, None]:
        made.put(item)
    for taker in takers:
        taker.join(WAIT_S)
        assert not taker.is_alive()
    assert sorted(item for mine in got for item in mine if item is not None) == list(range(2_000))


# --- batchers


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_way_of_batching_stores_everything_once(way) -> None:
    store = Store(fails=2 if way.fails else 0)
    batcher = way.open(store)
    for _ in range(600):
        batcher.submit()
    batcher.close()
    assert store.stored == len(store.latencies_ms) == 600
    assert all(each >= 0 for each in store.latencies_ms)


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0


# --- wire


def test_all_formats_hold_the_same_records() -> None:
    plain = wire.ndjson(20)
    for name, (encode, format) in wire.formats().items():
        records = wire.taken(encode(plain), format).records["default"]
        assert len(records) == 20, name
        (expected, *_) = wire.taken(plain, Format.LINES).records["default"]
        assert json.loads(records[0].payload).keys() == json.loads(expected.payload).keys()


# --- small runs


def plan(shown: list[Comparison], **options) -> Plan:
    return dataclasses.replace(
        Plan(
            quick=True,
            repetitions=1,
            records=2_000,
            single_requests=10,
            say=lambda _: None,
            show=shown.append,
        ),
        **options,
    )


@pytest.mark.parametrize("scenario", [buffer, serialization])
def test_a_small_run_compares_and_draws(scenario, tmp_path: Path) -> None:
    shown: list[Comparison] = []
    figures = scenario.measure(plan(shown))
    assert figures
    assert all(figure.value > 0 for figure in figures)
    (made,) = shown
    assert plot.write(made, tmp_path).stat().st_size > 1_000
    assert json.loads(json.dumps(made.as_json()))["panels"][0]["rows"]


def test_the_naive_way_is_the_baseline_of_the_batchers(monkeypatch) -> None:
    monkeypatch.setattr(batcher, "WRITE_S", 0.0005)
    monkeypatch.setattr(batcher, "RATE", 1_000)
    shown: list[Comparison] = []
    figures = batcher.measure(plan(shown, records=5_000))
    assert [figure.baseline_name for figure in figures] == ["naive"] * (len(WAYS) - 1)
    assert shown[0].panels[0].title == "Throughput"
    assert [len(panel.rows) for panel in shown[0].panels] == [len(WAYS)] * 2


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize("scenario", [sizes, sinks])
def test_a_small_run_against_databases(scenario, monkeypatch) -> None:
    # Each sink is a process of its own to start: the two databases do here.
    monkeypatch.setattr(sinks, "SINKS", sinks.SINKS[3:5])
    shown: list[Comparison] = []
    figures = scenario.measure(plan(shown))
    assert all(figure.value > 0 for figure in figures)
    assert len(shown) == 1


def test_what_is_compared_is_in_the_report_and_drawn_where_told(
    capsys, monkeypatch, tmp_path: Path
) -> None:
    class Compared:
        @staticmethod
        def measure(plan):
            plan.show(comparison())
            return []

    monkeypatch.setattr("importlib.import_module", {"compared": Compared}.get)
    monkeypatch.setattr(cli, "SCENARIOS", {"compared": "compared"})
    assert cli.main(["--json", "--plot", "--plot-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["comparisons"][0]["name"] == "thing"
    assert str(tmp_path / "benchmark-thing.svg") in said.err
    assert (tmp_path / "benchmark-thing.svg").exists()


def test_every_scenario_can_be_imported() -> None:
    import importlib

    for name in SCENARIOS.values():
        assert callable(importlib.import_module(name).measure), name
