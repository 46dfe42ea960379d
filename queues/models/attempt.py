"""One attempt at a job, or one delivery that was lost."""

from django.db import models

from queues.states import AttemptOutcome


class Attempt(models.Model):
    # Written with the end of the delivery, which locks the job: PostgreSQL need not look at the job again for each row. The
    # constraint below has the index.
    job = models.ForeignKey(
        "queues.Job", on_delete=models.CASCADE, related_name="attempts", db_index=False, db_constraint=False
    )
    number = models.PositiveIntegerField()
    delivery = models.PositiveIntegerField()
    outcome = models.CharField(max_length=16, choices=AttemptOutcome.choices)
    counted = models.BooleanField(default=True, help_text="Whether it counts against the job's maximum.")
    category = models.CharField(max_length=32, blank=True)
    account = models.CharField(max_length=128, blank=True, help_text="pool/name")
    status = models.PositiveIntegerField(null=True, help_text="HTTP status of the answer, where there was one.")
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    worker = models.CharField(max_length=128, blank=True)
    ready_at = models.DateTimeField(
        null=True, help_text="When the job became ready for this attempt. Empty: with its acceptance."
    )
    dispatched_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField()

    class Meta:
        ordering = ["job_id", "number"]
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="one_attempt_number")]

    def __str__(self) -> str:
        return f"{self.job_id} #{self.number} {self.outcome}"
