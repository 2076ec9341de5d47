"""A shop whose services have had good and bad days, and its status page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils import timezone

from healthmon.pages.models import StatusPage
from healthmon.targets.models import MaintenanceWindow, Tag, Target, TargetGroup
from healthmon.truth.models import Flip, Incident, IncidentEntry, TargetState

INTERNAL = "connect to 10.1.2.3:5432 refused"
ADDRESS = "https://internal.example/health"


@dataclass
class Shop:
    page: StatusPage
    now: datetime
    targets: dict[str, Target] = field(default_factory=dict)

    def move(self, name: str, status: str, at: datetime) -> None:
        """A change of status, as the flips sink stores it."""
        target = self.targets[name]
        state, _ = TargetState.objects.get_or_create(target=target)
        state.seq += 1
        Flip.objects.create(
            target=target,
            seq=state.seq,
            from_status=state.status,
            to_status=status,
            at=at,
            reason=INTERNAL,
        )
        state.status, state.since, state.reason = status, at, INTERNAL
        state.save()

    def outage(self, name: str, start: datetime, end: datetime | None) -> Incident:
        self.move(name, "down", start)
        if end is not None:
            self.move(name, "up", end)
        incident = Incident.objects.create(
            target=self.targets[name],
            opened_at=start,
            closed_at=end,
            opened_seq=TargetState.objects.get(target=self.targets[name]).seq,
            cause=INTERNAL,
            postmortem=INTERNAL,
        )
        incident.entries.create(at=start, kind="opened", text=INTERNAL)
        incident.entries.create(at=start, kind="comment", text=INTERNAL)
        incident.entries.create(at=start, kind="notified", text=INTERNAL)
        if end is not None:
            incident.entries.create(at=end, kind="closed", text=INTERNAL)
        return incident


def make_shop(*, published: bool = True) -> Shop:
    now = timezone.now()
    front = TargetGroup.objects.create(name="Front", order=1)
    back = TargetGroup.objects.create(name="Back office", order=2)
    tag = Tag.objects.create(name="public")
    page = StatusPage.objects.create(
        slug="shop", title="The shop", description="All that we run.", published=published
    )
    page.groups.set([front, back])
    page.tags.set([tag])
    shop = Shop(page=page, now=now)
    for name, group, more in (
        ("Web", front, {}),
        ("Checkout", front, {"badge": True}),
        ("Ledger", back, {}),
        ("Search", None, {}),
        ("Secret thing", back, {"public": False}),
        ("Elsewhere", None, {}),
    ):
        shop.targets[name] = Target.objects.create(
            name=name, group=group, address=ADDRESS, notes=INTERNAL, **more
        )
        if name != "Elsewhere":
            shop.targets[name].tags.add(tag)
        shop.move(name, "up", now - timedelta(days=100))
    shop.outage("Web", now - timedelta(days=3, hours=2), now - timedelta(days=3))
    incident = shop.outage("Checkout", now - timedelta(hours=1), None)
    IncidentEntry.objects.create(
        incident=incident, at=now, kind="comment", text="We are on it.", public=True
    )
    shop.move("Ledger", "degraded", now - timedelta(days=1))
    upkeep = MaintenanceWindow.objects.create(
        title="New disks", starts_at=now + timedelta(days=2), duration_s=7200
    )
    upkeep.groups.set([back])
    running = MaintenanceWindow.objects.create(
        title="Reindexing", starts_at=now - timedelta(minutes=10), duration_s=7200
    )
    running.targets.set([shop.targets["Search"]])
    MaintenanceWindow.objects.create(
        title="Hidden works", starts_at=now, all_targets=True, public=False
    )
    MaintenanceWindow.objects.create(title="Of others", starts_at=now).targets.set(
        [shop.targets["Elsewhere"]]
    )
    return shop
