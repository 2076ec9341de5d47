"""Histograms of latencies: against exact quantiles, and the algebra of merging."""

from __future__ import annotations

import random
from math import ceil, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmon.history.histogram import (
    HIGHEST_MS,
    LAST,
    LOWEST_MS,
    Histogram,
    HistogramError,
    bucket_of,
)

latencies = st.floats(min_value=LOWEST_MS, max_value=120_000, allow_nan=False)
counts = st.dictionaries(st.integers(0, LAST), st.integers(1, 2**40), max_size=60)
QUANTILES = (0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0)


def exact(values: list[float], q: float) -> float:
    return sorted(values)[max(1, ceil(q * len(values))) - 1]


@given(st.lists(latencies, min_size=1, max_size=300))
def test_quantiles_are_within_5_percent(values):
    histogram = Histogram.of(values)
    for q in QUANTILES:
        assert histogram.quantile(q) == pytest.approx(exact(values, q), rel=0.0401)


@given(st.lists(st.lists(latencies, max_size=80), min_size=1, max_size=8))
def test_quantiles_of_what_was_merged_are_those_of_all(parts):
    merged = Histogram.merged(Histogram.of(part).to_bytes() for part in parts)
    everything = [value for part in parts for value in part]
    assert merged == Histogram.of(everything)
    if everything:
        assert merged.quantile(0.95) == pytest.approx(exact(everything, 0.95), rel=0.0401)


@given(counts, counts, counts)
def test_merging_is_associative_and_commutative(a, b, c):
    x, y, z = (Histogram(dict(n)).to_bytes() for n in (a, b, c))
    left = Histogram.merged([Histogram.merged([x, y]).to_bytes(), z])
    right = Histogram.merged([x, Histogram.merged([y, z]).to_bytes()])
    assert left == right == Histogram.merged([z, y, x])
    assert left.to_bytes() == right.to_bytes()


@given(counts)
def test_bytes_are_read_back(numbers):
    histogram = Histogram(dict(numbers))
    assert Histogram.merged([histogram.to_bytes()]) == histogram


def test_a_long_tail_and_two_humps_keep_their_quantiles():
    dice = random.Random(7)
    values = [dice.lognormvariate(3, 1) for _ in range(20_000)]
    values += [dice.gauss(9_000, 50) for _ in range(300)]
    histogram = Histogram.merged(
        Histogram.of(values[n : n + 60]).to_bytes() for n in range(0, len(values), 60)
    )
    for q in QUANTILES:
        assert histogram.quantile(q) == pytest.approx(exact(values, q), rel=0.0401)


@pytest.mark.parametrize(
    ("ms", "bucket"),
    [(0.0, 0), (-1.0, 0), (nan, 0), (LOWEST_MS, 0), (-inf, 0), (inf, LAST), (1e12, LAST),
     (HIGHEST_MS, LAST)],
)  # fmt: skip
def test_what_is_out_of_range_counts_at_the_end(ms, bucket):
    assert bucket_of(ms) == bucket


def test_the_range_is_wide_enough():
    assert bucket_of(120_000) < LAST
    assert Histogram.of([120_000]).quantile(0.5) == pytest.approx(120_000, rel=0.0401)


def test_an_empty_one_has_no_quantiles():
    assert Histogram().quantiles((0.5, 0.99)) == [None, None]
    assert Histogram().to_bytes() == b""


def test_it_is_small():
    one_minute = Histogram.of([12.0, 12.4, 11.9, 13.0, 12.2, 40.0])
    assert len(one_minute.to_bytes()) <= 10
    dice = random.Random(1)
    a_day = Histogram.of(dice.lognormvariate(3, 0.5) for _ in range(8_640))
    assert len(a_day.to_bytes()) < 150


@pytest.mark.parametrize(
    "data", [b"\x01", b"\xff", b"\x80" * 20, b"\x7f\x01\x7f\x01\x7f\x01", b"\xff\x7f\x01",
             b"\x01\x01" * 5_000, b"\x81\x01" * 5_000]
)  # fmt: skip
def test_other_bytes_are_refused(data):
    histogram = Histogram()
    with pytest.raises(HistogramError):
        histogram.merge(data)
    assert histogram.count == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_a_histogram_or_refused(data):
    histogram = Histogram()
    try:
        histogram.merge(data)
    except HistogramError:
        return
    histogram.quantiles(QUANTILES)
