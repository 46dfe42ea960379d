"""The figures at the top of the dashboard: whether the instance is healthy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Count, Q, Sum
from django.utils import timezone

from queues import liveness
from queues.models import DeadLetter, Job, Leadership
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES, Stage
from quotas import clock
from quotas.admin.account_state import AVAILABLE
from quotas.models import Account

MOST = 10_000


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    now = timezone.now()
    jobs = Job.objects.order_by()
    letters = DeadLetter.objects.filter(handled_at=None).order_by()
    if projects is not None:
        jobs, letters = jobs.filter(project__in=projects), letters.filter(project__in=projects)
    open_letters = letters[: MOST + 1].count()
    figures: dict[str, Any] = {
        "waiting": jobs.filter(stage__in=WAITING_STAGES).count(),
        "running": jobs.filter(stage__in=IN_FLIGHT_STAGES).count(),
        "ended": jobs.filter(stage=Stage.DONE, finished_at__gt=now - timedelta(minutes=1)).count(),
        "letters": f"{MOST:,}+" if open_letters > MOST else open_letters,
        "platform": projects is None,
    }
    if projects is None:
        workers = liveness.alive(clock.now())
        figures |= workers.aggregate(workers=Count("pk"), busy=Sum("busy", default=0), places=Sum("places", default=0))
        figures |= Account.objects.aggregate(
            accounts=Count("pk"),
            able=Count("pk", filter=Q(enabled=True) & AVAILABLE),
            holding=Count("pk", filter=Q(enabled=True, state="paused") & AVAILABLE),
        )
        figures["leader"] = Leadership.objects.filter(until__gt=now).values_list("holder", flat=True).first()
    return figures
