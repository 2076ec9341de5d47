"""Dead letters among the problems of the dashboard.  Runs in request threads of the admin."""

from __future__ import annotations

from urllib.parse import urlencode

from django.urls import NoReverseMatch, reverse

from control.admin.figures import compact
from control.ports.panels import Problem, register_problems
from sinks.deadletters import box, tally
from sinks.deadletters.importer import quarantine_of
from sinks.deadletters.models import WAITING, DeadLetterTally


def register() -> None:
    """Put the problems on the dashboard."""
    register_problems(found, name="dead letters")


def found() -> list[Problem]:
    """Letters that wait, tallies that do not add up, files that could not be imported."""
    return [*_waiting(), *_imbalances(), *_files()]


def _waiting() -> list[Problem]:
    return [
        Problem(
            severity="warning",
            title=f"{compact(row.waiting)} record{'' if row.waiting == 1 else 's'} of sink "
            f"{row.sink_name} wait{'s' if row.waiting == 1 else ''} in dead letters",
            cause="The sink refused them for good, or their attempts or time ran out. They are "
            "stored nowhere else.",
            remedy="Look at why, by reason; correct the sink or the records; then redrive or "
            "discard them.",
            url=_link("groups", {"sink": row.sink}),
        )
        for row in tally.waiting()
        if row.waiting
    ]


def _imbalances() -> list[Problem]:
    return [
        Problem(
            severity="error",
            title=f"The dead letters of sink {row.sink_name} do not add up: "
            f"{compact(row.imbalance)}",
            cause="More or fewer have entered than wait, are redriving or have ended. This is a "
            "defect.",
            remedy="Keep the control database as it is and report it.",
            url=_link("groups", {"sink": row.sink}),
        )
        for row in DeadLetterTally.objects.all()
        if row.imbalance
    ]


def _files() -> list[Problem]:
    problems = []
    spool = box.spool()
    if spool.files():
        problems.append(
            Problem(
                severity="warning",
                title="Dead letters wait in files for the control database",
                cause=f"It did not take them; they are kept in {spool.directory}.",
                remedy="Nothing, once the database answers: they are imported within seconds.",
                url=_link("changelist", {"state": WAITING}),
            )
        )
    quarantine = quarantine_of(spool)
    if quarantine.is_dir() and any(quarantine.iterdir()):
        problems.append(
            Problem(
                severity="error",
                title="Dead letters could not be imported",
                cause="Lines of the spool were damaged, or the database refuses them.",
                remedy=f"Look at the files in {quarantine}; remove them when they are dealt with.",
            )
        )
    return problems


def _link(name: str, query: dict[str, str]) -> str:
    try:
        return f"{reverse(f'admin:sinks_deadletter_{name}')}?{urlencode(query)}"
    except NoReverseMatch:
        return ""
