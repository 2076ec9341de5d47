"""Owns: the full-screen picture of a run: figures, the queue with its marks, charts over time.

Drawn on the command's main thread from samples alone, so that tests draw it without a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ingest.producer.charts import bar, columns, round_top
from ingest.producer.durations import format_duration
from ingest.producer.pace import STEPS
from ingest.producer.run import RunOptions
from ingest.producer.samples import History

_LINES_KEPT = 100
# Rows that all but the two rows of charts and the lines take.
_FIXED_ROWS = 9
# Of the picture that stays when the screen is left.
_LAST_CHART_ROWS = 5


class Picture:
    """A rich renderable; `history` holds at least one sample, the first of the run."""

    def __init__(self, *, options: RunOptions, history: History, where: str) -> None:
        self._options, self._history, self._where = options, history, where
        self._lines: deque[tuple[str, str]] = deque(maxlen=_LINES_KEPT)
        self._begun_s = history.latest.at_s

    def say(self, line: str) -> None:
        """Called by whichever thread has something to say."""
        self._lines.append((self._time(), line))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.size.height
        spare = max(height - _FIXED_ROWS, 8)
        chart_rows = min(max((spare * 2 // 3 - 4) // 2, 2), 10)
        lines = max(spare - 2 * (chart_rows + 2) - 2, 1)
        yield self.figures(width)
        yield self.charts(width, chart_rows)
        said = [f"{at}  {line}" for at, line in list(self._lines)[-lines:]]
        said += [""] * (lines - len(said))
        yield Panel(
            Text("\n".join(said), no_wrap=True, overflow="ellipsis"),
            title="what happened",
            title_align="left",
            padding=(0, 1),
            border_style="dim",
        )

    def last(self, width: int) -> RenderableType:
        """What stays on the terminal: the figures and charts, and all that was said."""
        said = Text("\n".join(line for _, line in self._lines), no_wrap=True, overflow="ellipsis")
        return Group(self.figures(width), self.charts(width, _LAST_CHART_ROWS), said)

    def figures(self, width: int) -> RenderableType:
        history, options = self._history, self._options
        now, rates = history.latest, history.rates
        latest = rates[-1] if rates else None
        head = Text(f"Producer → {self._where}", style="bold", no_wrap=True, overflow="ellipsis")
        clock = Text(f"{self._time()}   Ctrl-C ends it", style="dim")
        title = Table.grid(expand=True)
        title.add_column(ratio=1)
        title.add_column(justify="right")
        title.add_row(head, clock)

        table = Table.grid(padding=(0, 2))
        for justify in ("left", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        table.add_column(ratio=1, no_wrap=True)
        pause = format_duration(now.pause_s) if now.pause_s else "none"
        refused = f", {now.refused:,} found it full" if now.refused else ""
        table.add_row(
            "Produced", f"{latest.produced_per_s if latest else 0:,.0f}/s", f"{now.produced:,}",
            f"one each {format_duration(options.rate_s)}; pause before each: {pause}{refused}",
        )  # fmt: skip
        table.add_row(
            "Processed", f"{latest.processed_per_s if latest else 0:,.0f}/s", f"{now.processed:,}",
            f"{now.batches:,} batches" + (f", {now.retries:,} retries" if now.retries else ""),
        )  # fmt: skip
        table.add_row(
            "Queue", f"{now.usage:.0%}", f"{now.held:,}/{now.capacity:,}",
            self._queue_bar(now.usage, max(width - 40, 10)),
        )  # fmt: skip
        table.add_row(
            "Workers", f"{now.workers}", f"{now.busy} busy",
            f"{options.min_workers} to {options.max_workers}: one more above "
            f"{options.scale_up:.0%}, one less below {options.scale_down:.0%}",
        )  # fmt: skip
        mean = f"{latest.mean_batch:,.0f} on average" if latest and latest.mean_batch else ""
        size = f"adaptive, from {options.batch_size}" if options.adaptive else "fixed"
        table.add_row("Batch size", f"{now.batch_limit:,}", "", f"{size}; {mean}".rstrip("; "))
        return Group(title, Text(), table, Text())

    def charts(self, width: int, rows: int) -> RenderableType:
        """Queue, rates, workers and batch sizes over time, two beside each other."""
        history = self._history
        samples, rates = history.samples, history.rates
        produced = [rate.produced_per_s for rate in rates]
        processed = [rate.processed_per_s for rate in rates]
        fastest = round_top(max([*produced, *processed, 1.0]))
        capacity, most = float(self._options.channel_size), float(self._options.max_workers)
        workers = [float(sample.workers) for sample in samples]
        sizes = [float(sample.batch_limit) for sample in samples]
        panel_width = (width - 1) // 2
        grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        half = max((rows - 1) // 2, 1)
        grid.add_row(
            _chart("queue", [float(s.held) for s in samples], panel_width, rows, capacity, "cyan"),
            _pair("in", produced, "out", processed, panel_width, half, fastest),
        )
        grid.add_row(
            _chart("workers", workers, panel_width, rows, most, "green"),
            _chart(
                "batch size", sizes, panel_width, rows, round_top(max([*sizes, 1.0])), "magenta"
            ),
        )
        return grid

    def _queue_bar(self, usage: float, width: int) -> Text:
        marks = sorted(above for above, _ in STEPS)
        style = "red" if usage > marks[-1] else "yellow" if usage > marks[0] else "green"
        return Text(bar(usage, width=width, marks=marks), style=style)

    def _time(self) -> str:
        """How long it has run, by the latest sample."""
        seconds = int(self._history.latest.at_s - self._begun_s)
        return f"{seconds // 60:02}:{seconds % 60:02}"


def _chart(
    name: str, values: Sequence[float], width: int, rows: int, top: float, style: str
) -> Panel:
    drawn = columns(values, width=max(width - 4, 1), height=rows, top=top)
    latest = f"{values[-1]:,.0f}" if values else "-"
    return Panel(
        Text("\n".join(drawn), style=style, no_wrap=True),
        title=f"{name} {latest}",
        title_align="left",
        subtitle=f"full height {top:,.0f}",
        subtitle_align="right",
        padding=(0, 1),
        border_style="dim",
    )


def _pair(
    upper: str,
    above: Sequence[float],
    lower: str,
    below: Sequence[float],
    width: int,
    rows: int,
    top: float,
) -> Panel:
    """Two charts of rates, one above the other on one scale.

    Short names: half of 80 columns holds both figures.
    """
    inner = max(width - 4, 1)
    body = Text(no_wrap=True)
    body.append("\n".join(columns(above, width=inner, height=rows, top=top)), style="blue")
    body.append("\n" + "─" * inner + "\n", style="dim")
    body.append("\n".join(columns(below, width=inner, height=rows, top=top)), style="yellow")
    latest = (f"{above[-1]:,.0f}", f"{below[-1]:,.0f}") if above and below else ("-", "-")
    return Panel(
        body,
        title=f"{upper} {latest[0]} · {lower} {latest[1]} /s",
        title_align="left",
        subtitle=f"full height {top:,.0f}/s",
        subtitle_align="right",
        padding=(0, 1),
        border_style="dim",
    )
