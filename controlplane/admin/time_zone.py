"""Shows the times of the admin in the zone that the signed-in person has chosen. REST and exports stay in UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from controlplane.models import Preferences

log = structlog.get_logger(__name__)


class TimeZoneMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not _is_admin(request):
            return self._get_response(request)
        with timezone.override(zone_of(request)):
            return self._get_response(request)


def _is_admin(request: HttpRequest) -> bool:
    """Whether a page of the admin is requested; never in a project that has no admin."""
    try:
        return request.path_info.startswith(reverse("admin:index"))
    except NoReverseMatch:
        return False


def zone_of(request: HttpRequest) -> tzinfo:
    """The zone that the signed-in person has chosen; else the instance's, which is UTC."""
    if not request.user.is_authenticated:
        return timezone.get_default_timezone()
    chosen = Preferences.objects.filter(user=request.user.pk).values_list("time_zone", flat=True).first()
    try:
        return ZoneInfo(chosen) if chosen else timezone.get_default_timezone()
    except (ZoneInfoNotFoundError, ValueError):
        # Another machine's list of zones had it.
        log.exception("admin.unknown_time_zone", zone=chosen)
        return timezone.get_default_timezone()
