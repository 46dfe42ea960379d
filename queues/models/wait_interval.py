"""A stretch of time in which jobs of one group waited for one cause.

Written by the dispatcher when a cause begins and when it ends, for a group and not for a job: a job's waits are the
parts of these intervals in which it was ready (`queues.selectors.wait_history`).
"""

from django.db import models
from django.db.models import Q


class WaitInterval(models.Model):
    """Without a queue it applies to every group: no dispatcher led, or no admission was possible.

    SQL has no constraint on the queue and the project: the dispatcher may write about one that was deleted meanwhile.
    """

    queue = models.ForeignKey(
        "queues.Queue", null=True, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    priority = models.PositiveSmallIntegerField(default=0)
    project = models.ForeignKey(
        "quotas.Project", null=True, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    pool = models.CharField(max_length=63, blank=True)
    ordering_key = models.CharField(
        max_length=24, blank=True, help_text="Only jobs with this ordering key waited. Blank: all jobs of the group."
    )
    code = models.CharField(max_length=24, help_text="A reason code (`queues.reason_codes`).")
    name = models.CharField(max_length=128, blank=True, help_text="The policy, pool, queue or lane.")
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, help_text="Empty while it lasts.")

    class Meta:
        ordering = ["began_at"]
        indexes = [
            models.Index(
                fields=["queue", "priority", "project", "pool", "ordering_key", "began_at"], name="wait_by_group"
            ),
            models.Index(fields=["ended_at"], name="wait_by_end"),
            models.Index(fields=["began_at"], condition=Q(queue__isnull=True), name="wait_of_all"),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.name} {self.began_at}"
