"""Increments add up, whatever their order and however they are cut."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pipeline.batching.coalescer import Coalescer, Sum


def read(payload: bytes) -> tuple[str, int]:
    name, amount = payload.decode().split("=")
    return name, int(amount)


def test_a_million_increments_of_a_hundred_counters_are_a_hundred_sums() -> None:
    seen = 0

    def counted(payload: bytes) -> tuple[str, int]:
        nonlocal seen
        seen += 1
        return read(payload)

    coalescer = Coalescer(read=counted)
    payloads = [b"counter-%d=%d" % (n, n % 3) for n in range(100)] * 100
    for _ in range(100):
        coalescer.add(payloads)
    assert len(coalescer.sums) == 100
    assert sum(held.count for held in coalescer.sums.values()) == 1_000_000
    assert coalescer.sums["counter-5"] == Sum(20_000, 10_000)
    assert seen == 100 * 100  # each that differs is read once in each of the hundred


def test_payloads_that_differ_add_to_one_key() -> None:
    coalescer = Coalescer(read=read)
    coalescer.add([b"a=1", b"a= 1", b"a=-3", b"b=0"])
    coalescer.add([b"a=1"])
    assert coalescer.sums == {"a": Sum(0, 4), "b": Sum(0, 1)}


def test_sums_are_exact_beyond_what_a_float_holds() -> None:
    coalescer = Coalescer(read=read)
    coalescer.add([b"a=9007199254740991"] * 3 + [b"a=1"])
    assert coalescer.sums["a"].total == 3 * (2**53 - 1) + 1


@pytest.mark.parametrize("seed", range(20))
def test_any_order_and_any_cut_come_to_the_same(seed: int) -> None:
    chance = random.Random(seed)
    sent = [
        b"%d=%d" % (chance.randrange(5), chance.randrange(-3, 4))
        for _ in range(chance.randrange(200))
    ]
    expected: Counter[str] = Counter()
    for payload in sent:
        name, amount = read(payload)
        expected[name] += amount
    chance.shuffle(sent)
    coalescer = Coalescer(read=read)
    while sent:
        cut = chance.randrange(1, len(sent) + 1)
        coalescer.add(sent[:cut])
        del sent[:cut]
    totals = {name: held.total for name, held in coalescer.sums.items()}
    assert totals == dict(expected)


def test_what_is_no_increment_is_told_and_nothing_of_it_added() -> None:
    coalescer = Coalescer(read=read)
    with pytest.raises(ValueError, match="invalid literal"):
        coalescer.add([b"a=many"])
    assert coalescer.sums == {}
