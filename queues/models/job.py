"""One job: its request, its state, and how it ended. It waits in SQL until it may run."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from queues.ids import new_id
from queues.models.stage import StageField
from queues.states import LIVE_STAGES, GroupKey, Stage, Status


class Job(models.Model):
    """`id` is also the order of submission. Columns fall into the request, the state, and how it ended."""

    uid = models.CharField("ID", max_length=32, unique=True, default=new_id, editable=False)

    # The request.
    project = models.ForeignKey("quotas.Project", on_delete=models.PROTECT, related_name="jobs", db_index=False)
    queue = models.ForeignKey("queues.Queue", on_delete=models.PROTECT, related_name="jobs", db_index=False)
    batch = models.ForeignKey(
        "queues.Batch", null=True, blank=True, on_delete=models.SET_NULL, related_name="jobs", db_index=False
    )
    type = models.CharField(max_length=200)
    payload = models.JSONField(default=dict)
    pool = models.CharField(
        max_length=63, blank=True, help_text="The pool that its payload or type names. Blank: the queue's."
    )
    model = models.CharField(
        max_length=200,
        blank=True,
        help_text="The provider's model that its payload names; a provider may limit each model separately.",
    )
    priority = models.PositiveSmallIntegerField(default=5)
    user = models.CharField(max_length=1024, blank=True)
    keys = models.JSONField(default=dict)
    cost = models.JSONField(default=dict)
    max_attempts = models.PositiveIntegerField("max attempts", default=5)
    timeout = models.FloatField(null=True)
    delivery_mode = models.CharField(max_length=16, default="at_least_once")
    callback_url = models.URLField("callback URL", max_length=1000, blank=True)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    request_hash = models.CharField(max_length=64, blank=True)
    unique_key = models.CharField(max_length=64, null=True, blank=True, editable=False)
    unique_until = models.DateTimeField(null=True, editable=False)

    # Where it is.
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    stage = StageField(choices=Stage.choices, default=Stage.READY)
    ordering_key = models.CharField(
        max_length=24,
        blank=True,
        help_text="Hash of user and keys: jobs with equal ones start in order.",
    )
    not_before = models.DateTimeField(
        null=True, blank=True, help_text="Not started before this time. For a ready job: when it became ready."
    )
    delivery = models.PositiveIntegerField(
        default=0, help_text="Fencing token: increases with each release to the belt."
    )
    parcel = models.CharField(max_length=64, blank=True, help_text="The RQ job that carries this delivery.")
    dispatched_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(
        null=True, help_text="While running: when the worker's claim expires unless it is renewed."
    )
    worker = models.CharField(max_length=128, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    account = models.ForeignKey(
        "quotas.Account", null=True, blank=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    account_lease = models.CharField(max_length=64, blank=True)
    reservation = models.CharField(max_length=64, blank=True)
    refused_by = models.BigIntegerField(
        null=True,
        editable=False,
        help_text="The account whose credential was refused for this job: another one is taken.",
    )
    attempts_made = models.PositiveIntegerField(
        default=0, verbose_name="total attempts", help_text="Never resets, not even with a replay."
    )
    attempts_counted = models.PositiveIntegerField(
        default=0, verbose_name="attempts used", help_text="Attempts that count against the maximum."
    )
    deaths = models.PositiveSmallIntegerField(
        default=0, verbose_name="worker crashes", help_text="Processes that died while they ran this job alone."
    )
    losses = models.PositiveSmallIntegerField(default=0, help_text="Deliveries whose worker was lost.")
    returns = models.PositiveSmallIntegerField(default=0, help_text="Deliveries to workers that did not know its type.")
    suspect = models.BooleanField(
        default=False,
        verbose_name="isolated after worker crash",
        help_text="Runs alone in a process of its own.",
    )
    replays = models.PositiveIntegerField(default=0)
    edits = models.PositiveIntegerField(default=0, help_text="Replays with another payload.")
    reason = models.CharField("status reason", max_length=500, blank=True)

    # How it ended.
    result = models.JSONField(null=True)
    category = models.CharField(max_length=32, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, help_text="Start of the last attempt.")
    first_started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="one_job_per_idempotency_key",
            )
        ]
        indexes = [
            models.Index(
                fields=["queue", "priority", "project", "pool", "id"], condition=Q(stage=Stage.READY), name="job_ready"
            ),
            models.Index(fields=["not_before"], condition=Q(stage=Stage.SCHEDULED), name="job_scheduled"),
            # Retried and replayed jobs only: a job that was ready from the start has no `not_before`.
            models.Index(
                fields=["queue", "not_before"],
                condition=Q(stage=Stage.READY, not_before__isnull=False),
                name="job_ready_again",
            ),
            models.Index(
                fields=["queue", "stage", "priority", "project", "status"],
                condition=Q(stage__in=[Stage.HELD, Stage.SCHEDULED, Stage.READY]),
                name="job_waiting",
            ),
            models.Index(
                fields=["stage", "queue", "suspect", "worker"],
                condition=Q(stage__in=[Stage.BELT, Stage.RUNNING]),
                name="job_in_flight",
            ),
            models.Index(fields=["project", "-id"], name="job_by_project"),
            models.Index(fields=["batch", "status"], condition=Q(batch__isnull=False), name="job_by_batch"),
            models.Index(fields=["status", "-id"], name="job_by_status"),
            models.Index(fields=["queue", "-id"], name="job_by_queue"),
            models.Index(
                fields=["unique_key"],
                condition=Q(unique_key__isnull=False, stage__in=LIVE_STAGES),
                name="job_unique_live",
            ),
            models.Index(fields=["queue", "finished_at"], condition=Q(stage=Stage.DONE), name="job_finished"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.uid}"

    @property
    def group(self) -> GroupKey:
        """The group in which the dispatcher reads it."""
        return GroupKey(self.queue_id, self.priority, self.project_id, self.pool)


class JobDependency(models.Model):
    """`job` waits until `after` is completed."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="dependencies")
    after = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="dependents")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "after"], name="one_dependency")]

    def __str__(self) -> str:
        return f"{self.job_id} after {self.after_id}"
