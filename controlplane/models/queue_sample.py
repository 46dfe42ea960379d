"""A queue's and project's jobs in one minute, for charts. Minutes are kept for a day, then hours for eight days."""

from __future__ import annotations

from django.db import models


class QueueSample(models.Model):
    """Depths are those at the end of the time (in an hour: the highest); jobs are those that came or ended in it."""

    queue = models.ForeignKey("queues.Queue", on_delete=models.CASCADE, related_name="samples", db_index=False)
    project = models.ForeignKey("quotas.Project", on_delete=models.CASCADE, related_name="+")
    resolution = models.CharField(max_length=8)
    at = models.DateTimeField(help_text="Start of the minute or hour.")
    high = models.PositiveIntegerField(default=0)
    normal = models.PositiveIntegerField(default=0)
    low = models.PositiveIntegerField(default=0)
    running = models.PositiveIntegerField(default=0)
    enqueued = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    dead = models.PositiveIntegerField(default=0)
    cancelled = models.PositiveIntegerField(default=0)
    waits = models.JSONField(default=dict, help_text="Numbers of ended jobs by bucket of their wait.")
    runs = models.JSONField(default=dict, help_text="Numbers of ended jobs by bucket of their last run.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["resolution", "at", "queue", "project"], name="one_queue_sample")
        ]

    def __str__(self) -> str:
        return f"{self.queue_id} at {self.at:%Y-%m-%d %H:%M}"
