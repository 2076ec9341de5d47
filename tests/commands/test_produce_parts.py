"""The producer's pure pieces: durations, the pace, the log, the line, charts."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError

import pytest

from ingest.producer.charts import bar, columns, round_top, squeezed
from ingest.producer.durations import duration, format_duration, parse_duration
from ingest.producer.hello import hello
from ingest.producer.pace import pace
from ingest.producer.run import Outcome, RunOptions
from ingest.producer.samples import History, Sample, metrics_line
from ingest.wire.logs import build
from ingest.wire.logs import decode as decode_log


def sample(**figures):
    figures = {
        "at_s": 0.0, "produced": 0, "processed": 0, "batches": 0, "refused": 0, "retries": 0,
        "held": 0, "capacity": 1500, "workers": 1, "busy": 0, "batch_limit": 50, "pause_s": 0.0,
    } | figures  # fmt: skip
    return Sample(**figures)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("500ms", 0.5),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1m30s", 90.0),
        ("0", 0.0),
        ("0s", 0.0),
    ],
)
def test_durations_are_numbers_with_units(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "ms", "1 s", "-1s", "1s2", "1d", "1e3s", "٣s", "1" * 13 + "s", "nan", "1s "]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="write it like 100us, 500ms, 1s"):
        parse_duration(text)


def test_a_duration_has_its_bounds():
    parse = duration(0.001, 60.0)
    assert parse("1m") == 60.0
    with pytest.raises(ArgumentTypeError, match="999us is not between 1ms and 60s"):
        parse("999us")
    with pytest.raises(ArgumentTypeError, match="61s is not between"):
        parse("61s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0001, "100us"), (0.5, "500ms"), (1.0, "1s"), (0.0025, "2.5ms"), (0.0, "0"), (90.0, "90s")],
)
def test_a_duration_is_written_with_one_unit(seconds, text):
    assert format_duration(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("usage", "pause_s"),
    [
        (0.0, 0.0),
        (0.8, 0.0),
        (0.8001, 0.0005),
        (0.9, 0.0005),
        (0.9001, 0.001),
        (0.95, 0.001),
        (0.9501, 0.002),
        (1.0, 0.002),
    ],
)
def test_the_fuller_the_queue_the_longer_the_pause(usage, pause_s):
    assert pace(usage) == pause_s


def test_the_log_is_what_the_server_makes_of_the_same_line():
    made = hello(1712345678123456)
    assert json.loads(made.payload) == {
        "msg": "hello from producer",
        "level": "INFO",
        "ts": 1712345678123456,
    }
    assert made.payload == (
        b'{"msg": "hello from producer", "level": "INFO", "ts": 1712345678123456}'
    )
    assert [made] == build([decode_log(made.payload)], [made.payload], 0)


def test_the_defaults_are_the_documented_ones():
    settings = RunOptions().pipeline()
    assert RunOptions().rate_s == 0.0001
    assert (settings.capacity_records, settings.max_records, settings.max_wait_s) == (1500, 50, 0.5)
    assert (settings.min_workers, settings.max_workers) == (1, 10)
    assert settings.high_watermark == 1.0
    scale = settings.autoscale
    assert (scale.interval_s, scale.up, scale.down, scale.up_batches) == (1.0, 0.8, 0.2, 0)
    assert not settings.adaptive.batch


def test_adaptive_batches_begin_at_the_batch_size_whatever_it_is():
    for size in (1, 50, 20_000):
        options = RunOptions(batch_size=size, channel_size=50_000, adaptive=True)
        adaptive = options.pipeline().adaptive
        assert adaptive.start_records == size
        assert adaptive.min_records <= size <= adaptive.max_records


def test_the_metrics_line():
    before = sample(at_s=10.0, produced=1000, processed=500)
    after = sample(at_s=12.0, produced=3954, processed=800, held=1277, workers=2)
    assert metrics_line(before, after) == (
        "[METRICS] Produced=1477/s | Processed=150/s | Queue=1277/1500 | Workers=2"
    )


def test_a_history_smooths_rates_and_forgets():
    history = History(keep=2, span=2)
    for second in range(6):
        history.add(sample(at_s=float(second), processed=100 * second, batches=second))
    assert [one.at_s for one in history.samples] == [2.0, 3.0, 4.0, 5.0]
    history.add(sample(at_s=6.0, processed=700, batches=6))
    assert history.rates[-1].processed_per_s == pytest.approx(150.0)  # 300 in 2 s, not 200 in 1
    assert history.rates[-1].mean_batch == pytest.approx(150.0)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"produced": 5, "processed": 5}, "Produced=5 | Processed=5 | equal"),
        ({"produced": 5, "processed": 3}, "NOT equal: 2 logs were not processed"),
        ({"produced": 5, "processed": 6}, "NOT equal: 1 logs came twice"),
        ({"produced": 5, "processed": 5, "imbalance": 1}, "NOT equal"),
        ({"produced": 5, "processed": 5, "settled": False}, "NOT equal"),
    ],
)
def test_the_result_is_equal_only_where_all_agree(figures, said):
    outcome = Outcome(**{"stored": 5, "imbalance": 0, "settled": True} | figures)
    assert said in outcome.line()
    assert outcome.equal == ("NOT" not in said)


# --- charts -------------------------------------------------------------------------------------


def test_columns_grow_from_the_bottom_and_end_at_the_right():
    assert columns([0, 4, 8, 16], width=6, height=2, top=16) == ["     █", "   ▄██"]


def test_a_small_value_is_seen_and_a_large_one_stays_in_the_chart():
    assert columns([0.001, 99], width=2, height=1, top=10) == ["▁█"]
    assert columns([1.0], width=1, height=1, top=0) == ["▁"]


def test_more_values_than_columns_are_squeezed_by_their_mean():
    assert columns([8, 8, 0, 8], width=2, height=1, top=8) == ["█▄"]
    assert squeezed([1, 2, 3, 4, 5], 2) == [2.0, 4.5]
    assert squeezed([1, 2], 2) == [1, 2]
    assert squeezed([], 5) == []


def test_a_bar_shows_the_marks_it_has_not_reached():
    assert bar(0.5, width=10, marks=(0.2, 0.8)) == "█████░░░│░"
    assert bar(1.5, width=4) == "████"
    assert bar(-1.0, width=4, marks=(1.0,)) == "░░░│"


@pytest.mark.parametrize(("value", "top"), [(0, 1), (3, 5), (5, 5), (51, 100), (1001, 2000)])
def test_the_scale_is_a_round_number(value, top):
    assert round_top(value) == top
