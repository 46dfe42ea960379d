"""Ignore a group of failures until a time, and stop ignoring it. Both are audited once for each project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet

from queues.models import DeadLetter, IgnoredFailure
from queues.selectors.ignored_failures import without_ignored
from quotas import clock, events


def ignore(
    letters: QuerySet[DeadLetter], fingerprint: str, span: timedelta, *, actor: str, reason: str = ""
) -> datetime | None:
    """Ignore the failure in each project that has an open one among `letters`; returns until when. None if there is
    none that is not ignored already: what somebody ignored keeps its end and its reason."""
    now = clock.now()
    until = now + span
    with transaction.atomic():
        IgnoredFailure.objects.filter(until__lte=now).delete()
        opened = without_ignored(letters.filter(handled_at=None, fingerprint=fingerprint), now)
        projects = opened.order_by().values_list("project", flat=True).distinct()
        IgnoredFailure.objects.bulk_create(
            [
                IgnoredFailure(
                    project_id=project, fingerprint=fingerprint, until=until,
                    ignored_at=now, ignored_by=actor[:200], reason=reason[:500],
                )
                for project in projects
            ],
            ignore_conflicts=True,
        )  # fmt: skip
        # Those of somebody who did it at the same time are theirs.
        mine = IgnoredFailure.objects.filter(fingerprint=fingerprint, ignored_at=now, ignored_by=actor[:200])
        slugs = list(mine.values_list("project__slug", flat=True))
        for slug in slugs:
            after = {"ignored_until": until.isoformat()}
            _audit("dead_letter.ignore", actor, fingerprint, None, after, reason, slug)
    return until if slugs else None


def stop_ignoring(ignored: Iterable[IgnoredFailure], *, actor: str, reason: str = "") -> int:
    """How many of `ignored` were ignored until now. They may be alerted again from now on."""
    done = 0
    with transaction.atomic():
        for one in ignored:
            deleted, _ = IgnoredFailure.objects.filter(pk=one.pk).delete()
            if deleted:
                before = {"ignored_until": one.until.isoformat(), "by": one.ignored_by, "reason": one.reason}
                after = {"ignored_until": None}
                _audit("dead_letter.stop_ignoring", actor, one.fingerprint, before, after, reason, one.project.slug)
                done += 1
    return done


def _audit(
    verb: str,
    actor: str,
    fingerprint: str,
    before: Mapping[str, object] | None,
    after: Mapping[str, object],
    reason: str,
    project: str,
) -> None:
    events.emit(events.OperatorActed(actor, verb, f"failure:{fingerprint}", before, after, reason, project=project))
