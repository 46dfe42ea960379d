"""The states of a job: what callers see (`Status`) and how far it has come (`Stage`).

A job waits in SQL until it may run at once:

    HELD ──► SCHEDULED ──► READY ──► BELT ──► RUNNING ──► DONE
      others    a time      a group   RQ       a thread

`Status` is the contract's word and says why; `Stage` is what the dispatcher, the workers and the reconciler go by.
"""

from datetime import timedelta
from typing import NamedTuple

from django.db import models


class Status(models.TextChoices):
    PENDING = "pending", "Pending"
    EXECUTING = "executing", "Executing"
    RATE_LIMITED = "rate_limited", "Rate limited"
    RETRYING = "retrying", "Retrying"
    COMPLETED = "completed", "Completed"
    DEAD = "dead", "Dead"
    CANCELLED = "cancelled", "Cancelled"


class Stage(models.IntegerChoices):
    HELD = 0, "Held: waits for other jobs"
    SCHEDULED = 1, "Scheduled: waits for a time"
    READY = 2, "Ready: waits in its group"
    BELT = 3, "On the belt: admitted, not yet started"
    RUNNING = 4, "Running"
    DONE = 5, "Done"


class AttemptOutcome(models.TextChoices):
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    RATE_LIMITED = "rate_limited", "Rate limited"
    CANCELLED = "cancelled", "Cancelled"
    LOST = "lost", "Lost"


class GroupKey(NamedTuple):
    """What the jobs of one group share. The dispatcher reads ready jobs by group."""

    queue_id: int
    priority: int
    project_id: int
    pool: str


CLAIM_EXPIRY = timedelta(seconds=15)
"""How long a claim lasts without a heartbeat; a third of it passes between two."""
WORKER_LANES = ("io", "cpu")
"""Kinds of worker: threads for jobs that wait, forked processes for jobs that compute or may crash."""
FINAL = (Status.COMPLETED, Status.DEAD, Status.CANCELLED)
WAITING_STAGES = (Stage.HELD, Stage.SCHEDULED, Stage.READY)
IN_FLIGHT_STAGES = (Stage.BELT, Stage.RUNNING)
LIVE_STAGES = (*WAITING_STAGES, *IN_FLIGHT_STAGES)
UNFINISHED = tuple(status for status in Status if status not in FINAL)
