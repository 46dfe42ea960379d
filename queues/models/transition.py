"""A step in a job's life that no other row records: deferrals, retries, cancels, replays.

The ordinary steps (accepted, started, ended) stand in the job and its attempts; writing them twice would double the
cost of a job. `selectors.timeline` joins all of it.
"""

from django.db import models


class Transition(models.Model):
    job = models.ForeignKey("queues.Job", on_delete=models.CASCADE, related_name="transitions")
    at = models.DateTimeField()
    state = models.CharField(max_length=16)
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.job_id} {self.state} {self.at}"
