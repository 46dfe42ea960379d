"""Times as pages show them: in the time zone of the person who looks, with its name.

`controlplane.admin.time_zone` activates the zone for each request of the admin.
"""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone
from django.utils.dateformat import format as formatted

SECONDS = "Y-m-d H:i:s"
"""Django's codes: https://docs.djangoproject.com/en/5.2/ref/templates/builtins/#date"""


def spell_moment(at: datetime, form: str = SECONDS, *, zone: bool = True) -> str:
    """`2026-10-25 02:30:00 CEST`; without its `zone` where the page or the column names it."""
    local = timezone.localtime(at)
    return f"{formatted(local, form)} {zone_of(local)}" if zone else formatted(local, form)


def zone_of(at: datetime) -> str:
    """The abbreviation of the zone at that moment, `CET` or `CEST`; `UTC+05:45` where the zone has only a number."""
    name = timezone.localtime(at).tzname() or "UTC"
    return name if name.isalpha() else f"UTC{offset_of(at)}"


def offset_of(at: datetime) -> str:
    """Such as `+05:30`."""
    return timezone.localtime(at).isoformat(timespec="seconds")[-6:]
