"""Deletes jobs that have ended, with all that belongs to them. Callbacks that are due stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.db import transaction
from django.db.models import Count, QuerySet

from queues.models import AnsweredKey, Attempt, Batch, Callback, DeadLetter, Job, JobDependency, Transition
from queues.states import Stage

SLICE = 1000
"""Rows deleted by one statement."""


def remove(ids: Sequence[int]) -> None:
    """Delete the jobs; inside a transaction that has locked them."""
    jobs = Job.objects.filter(id__in=ids)
    _keep_totals(jobs)
    about = Callback.objects.filter(job_id__in=ids)
    about.filter(due_at__isnull=False).update(job=None)
    about._raw_delete("default")
    # Children first and by hand: the ORM's own cascade would read every row before it deletes it.
    for child in (Attempt, Transition, DeadLetter, AnsweredKey):
        child.objects.filter(job_id__in=ids)._raw_delete("default")
    JobDependency.objects.filter(job_id__in=ids).delete()
    JobDependency.objects.filter(after_id__in=ids).delete()
    Batch.objects.filter(then_id__in=ids).update(then=None)
    jobs._raw_delete("default")


def remove_all(jobs: QuerySet[Job]) -> None:
    """Delete those of the jobs that have ended."""
    with transaction.atomic():
        ended = jobs.filter(stage=Stage.DONE).order_by("id")
        while ids := list(ended.select_for_update(of=("self",)).values_list("id", flat=True)[:SLICE]):
            remove(ids)


def _keep_totals(jobs: QuerySet[Job]) -> None:
    """Count what is about to be deleted on the batches it belongs to, so that their totals stay what they were."""
    gone: dict[int, Counter[str]] = {}
    counted = jobs.filter(batch__isnull=False).order_by().values_list("batch_id", "status").annotate(count=Count("id"))
    for batch_id, status, count in counted:
        assert batch_id is not None
        gone.setdefault(batch_id, Counter())[status] += count
    batches = list(Batch.objects.filter(pk__in=gone).order_by("pk").select_for_update(no_key=True))
    for batch in batches:
        batch.pruned = dict(Counter(batch.pruned) + gone[batch.pk])
    Batch.objects.bulk_update(batches, ["pruned"], batch_size=200)
