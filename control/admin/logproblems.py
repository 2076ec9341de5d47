"""What is wrong with logs: disks that take no more, damage, and logs that nobody delivers.

Pure functions over an overview, but for the names and sizes that they read of this host's logs.
They run in request threads.
"""

from __future__ import annotations

from control.admin import logdirs, quarantine
from control.admin.figures import ago, compact, size
from control.admin.links import link
from control.admin.logs import LogView
from control.admin.overview import Overview
from control.ports.panels import Problem

ERROR_LENGTH = 300
LOGS_SHOWN = 5


def found(overview: Overview) -> list[Problem]:
    return [
        *(problem for log in overview.logs for problem in _troubled(log)),
        *(problem for log in overview.logs for problem in _unreadable(log)),
        *_unclaimed(overview),
        *_quarantined(),
        *_adopted(overview),
    ]


def _troubled(log: LogView) -> list[Problem]:
    if log.state in ("ok", "memory", ""):
        return []
    full = log.state == "full"
    return [
        Problem(
            severity="error",
            title=f"The disk under the log of {log.process} is full"
            if full
            else f"The log of {log.process} cannot be written",
            cause=(log.error or "A write or a sync failed")[:ERROR_LENGTH].rstrip(".")
            + ". Senders are answered 503 with a Retry-After; what was acknowledged is kept.",
            remedy=f"Make room on the volume of {log.directory or 'the log'}, or have its sinks "
            "store what waits; the log goes on by itself."
            if full
            else f"Look at the disk under {log.directory or 'the log'} (the kernel's log names "
            "it). After a failed sync the log goes on in a new segment; a disk that keeps "
            "failing must be replaced.",
            url=link("admin:log"),
        )
    ]


def _unreadable(log: LogView) -> list[Problem]:
    if not log.unreadable:
        return []
    named = "; ".join(f"{log_id}: {error}" for log_id, error in log.unreadable[:LOGS_SHOWN])
    count = len(log.unreadable)
    return [
        Problem(
            severity="error",
            title=f"{log.process} cannot adopt {count} log{'s' if count > 1 else ''} of ended "
            "processes",
            cause=named[:ERROR_LENGTH],
            remedy="Its records wait on the disk, and it is tried again every 15 s. Correct what "
            "keeps it from being read (permissions, the disk), and run “manage.py wal verify”.",
            url=link("admin:log"),
        )
    ]


def _unclaimed(overview: Overview) -> list[Problem]:
    told = {log_id for log in overview.logs for log_id, _ in log.unreadable}
    orphans = [one for one in logdirs.unclaimed(overview) if one.log_id not in told]
    if not orphans:
        return []
    named = ", ".join(
        f"{one.log_id} ({size(one.nbytes)}, last written {ago(one.changed_at, overview.now)})"
        for one in orphans[:LOGS_SHOWN]
    )
    alive = bool(overview.alive)
    return [
        Problem(
            severity="error",
            title="1 log has no process that delivers it"
            if len(orphans) == 1
            else f"{len(orphans)} logs have no process that delivers them",
            cause=f"Their processes ended before everything was stored: {named}."
            + ("" if alive else " No process lives that could adopt them."),
            remedy="See the process's log for why it cannot adopt them (permissions, a lock that "
            "another program holds), and run “manage.py wal verify”."
            if alive
            else "Start the server: it adopts every log under its directory.",
            url=link("admin:log"),
        )
    ]


def _quarantined() -> list[Problem]:
    files, nbytes = quarantine.held()
    if not files:
        return []
    return [
        Problem(
            severity="warning",
            title=f"Damaged frames were found in a log: {size(nbytes)} in quarantine",
            cause=f"{files} {'piece was' if files == 1 else 'pieces were'} torn or corrupt, by a "
            "power cut while it was written or by the disk. Records that had been acknowledged "
            "count as dropped{corrupt}; an unfinished end never was acknowledged.",
            remedy="Check the disk, see what was damaged, and delete the files once you have "
            "taken from them what you need.",
            url=link("admin:log") + "#quarantine" if link("admin:log") else "",
        )
    ]


def _adopted(overview: Overview) -> list[Problem]:
    problems = []
    for log in overview.logs:
        for one in log.adopted:
            since = f" since {ago(one.adopted_at, overview.now)}" if one.adopted_at else ""
            problems.append(
                Problem(
                    severity="info",
                    title=f"{compact(one.left_records)} records of an ended process are being "
                    "delivered",
                    cause=f"{log.process} has had its log {one.log_id}{since}.",
                    remedy="Nothing is to be done; it ends when the sinks have taken them.",
                    url=link("admin:log"),
                )
            )
    return problems
