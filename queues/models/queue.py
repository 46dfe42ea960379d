"""A queue: how many jobs may wait and run, for how long, with which retries and which pool."""

from __future__ import annotations

from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.names import name_validator


class Queue(Versioned):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    max_size = models.PositiveIntegerField(
        null=True, blank=True, default=100_000, help_text="Queued jobs at most. Leave blank for no limit."
    )
    timeout = models.FloatField(default=600.0, help_text="Seconds that a job may run.")
    retry_policy = models.ForeignKey(
        "queues.RetryPolicy", null=True, blank=True, on_delete=models.PROTECT, related_name="queues"
    )
    pool = models.ForeignKey(
        "quotas.Pool",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="queues",
        help_text="Used by jobs that name no pool.",
    )
    concurrency = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Jobs running at once. 0 runs none; leave blank for no limit but the workers' slots.",
    )
    lane = models.CharField(
        max_length=8, default="io", choices=[("io", "io: threads"), ("cpu", "cpu: a process for each job")]
    )
    priority_levels = models.PositiveIntegerField(default=10)
    paused_at = models.DateTimeField(null=True, blank=True, help_text="When an operator paused it.")
    paused_reason = models.CharField(max_length=500, blank=True)
    draining_at = models.DateTimeField(
        null=True, blank=True, help_text="When an operator started to drain it: new jobs are refused since then."
    )
    draining_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """`paused`, `draining` or `running`."""
        return "paused" if self.paused_at else "draining" if self.draining_at else "running"
