"""The passive kind of target: nothing is probed, pings must come in on time.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from msgspec import Meta

from healthmon.probes.kind import ProbeKind, ProbeOptions

NAME = "heartbeat"
MAX_SERVICE_CHARS = 200


class HeartbeatOptions(ProbeOptions, frozen=True, kw_only=True):
    """Without `cron`, a ping is expected every interval of the target."""

    cron: Annotated[
        str,
        Meta(
            max_length=100,
            description="When the job runs: five cron fields. Empty: every interval.",
        ),
    ] = ""
    time_zone: Annotated[
        str, Meta(max_length=64, description="The time zone of the cron fields.")
    ] = "UTC"
    grace_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31 * 86_400,
            description="A ping may be so late, and a run may take so long, before it is missed.",
        ),
    ] = 60.0
    tenant: Annotated[
        str,
        Meta(
            max_length=63,
            description="Take only this tenant's pings to /health. Empty: any tenant's.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        if self.time_zone not in available_timezones():
            raise ValueError(f"time_zone: there is no time zone {self.time_zone!r}")
        if not self.cron:
            return
        if len(self.cron.split()) != 5:
            raise ValueError("cron: five fields are needed, such as 30 2 * * *")
        try:
            next(CronSim(self.cron, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise ValueError(f"cron: {error}") from None
        except StopIteration:
            raise ValueError("cron: there is no such date within fifty years") from None

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


def address_problem(address: str) -> str:
    """A heartbeat needs no address; with one, pings to /health of that service feed it, too."""
    if len(address) > MAX_SERVICE_CHARS:
        return f"a service's name has at most {MAX_SERVICE_CHARS} characters"
    if address != address.strip():
        return "the service's name begins or ends with a space"
    return ""


KIND = ProbeKind(
    name=NAME,
    label="Heartbeat",
    description=(
        "Expects pings: at a secret address of its own, or to /health in a service's name; "
        "it is down when one is missing or tells of a failure."
    ),
    Options=HeartbeatOptions,
    address_label="Service (of pings to /health)",
    address_example="nightly-backup",
    address_problem=address_problem,
    host=lambda address: "",
    probe=None,
)
