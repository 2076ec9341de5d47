"""The full-screen picture, drawn from samples without a terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from ingest.producer.run import RunOptions
from ingest.producer.samples import History
from ingest.producer.watch import Picture
from tests.commands.test_produce_parts import sample


def picture(*samples, **options):
    history = History(keep=480, span=4)
    history.add(samples[0])
    made = Picture(options=RunOptions(**options), history=history, where="a slow sink")
    for one in samples[1:]:
        history.add(one)
    return made


def drawn(of, *, width=120, height=40):
    out = StringIO()
    Console(file=out, width=width, height=height).print(of, height=height)
    return out.getvalue().rstrip("\n").split("\n")


RISING = [
    sample(
        at_s=10 + n / 4, produced=400 * n, processed=100 * n, batches=2 * n, held=40 * n,
        workers=1 + n // 10, busy=1, batch_limit=50 + n, pause_s=0.002 if n > 25 else 0.0,
    )
    for n in range(35)
]  # fmt: skip


def test_it_tells_the_figures():
    text = "\n".join(drawn(picture(*RISING, adaptive=True)))
    assert "Producer → a slow sink" in text
    assert "00:08" in text
    for row in (
        r"Produced 1,600/s 13,600 one each 100us; pause before each: 2ms",
        r"Processed 400/s 3,400 68 batches",
        r"Queue 91% 1,360/1,500 █",
        r"Workers 4 1 busy 1 to 10: one more above 80%, one less below 20%",
        r"Batch size 84 adaptive, from 50; 50 on average",
    ):
        assert row in " ".join(text.split()), row


def test_it_draws_pressure_workers_and_batches_over_time():
    text = "\n".join(drawn(picture(*RISING)))
    for title in (
        "queue 1,360",
        "in 1,600 · out 400 /s",
        "workers 4",
        "batch size",
    ):
        assert title in text
    assert "full height 1,500" in text
    assert "full height 10 " in text


def test_what_is_said_is_shown_with_its_time():
    history = History(keep=480, span=4)
    history.add(RISING[0])
    one = Picture(options=RunOptions(), history=history, where="x")
    history.add(RISING[20])
    one.say("Scaler: scaling UP, workers = 2")
    text = "\n".join(drawn(one))
    assert "00:05  Scaler: scaling UP, workers = 2" in text


def test_the_last_lines_are_kept():
    one = picture(*RISING)
    for number in range(500):
        one.say(f"line {number}")
    text = "\n".join(drawn(one))
    assert "line 499" in text
    assert "line 0" not in text


def test_what_stays_is_the_whole_story():
    one = picture(*RISING)
    one.say("Scaler: scaling UP, workers = 2")
    out = StringIO()
    Console(file=out, width=100, height=30).print(one.last(100))
    text = out.getvalue()
    assert "queue 1,360" in text
    assert "\nScaler: scaling UP, workers = 2\n" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 40), (200, 60)])
def test_it_fits_the_terminal(width, height):
    lines = drawn(picture(*RISING, adaptive=True), width=width, height=height)
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


def test_both_rates_are_read_on_the_smallest_screen():
    fast = [sample(at_s=n / 4, produced=250_000 * n, processed=249_999 * n) for n in range(8)]
    text = "\n".join(drawn(picture(*fast), width=80, height=24))
    assert "in 1,000,000 · out 999,996 /s" in text


def test_markup_in_a_line_is_only_text():
    one = picture(RISING[0])
    one.say("[red]the server said [/nonsense]")
    assert "[red]the server said [/nonsense]" in "\n".join(drawn(one))


def test_it_is_drawn_from_the_first_sample_on():
    text = "\n".join(drawn(picture(sample(at_s=5.0))))
    assert "00:00" in text
    assert "0/1,500" in text
