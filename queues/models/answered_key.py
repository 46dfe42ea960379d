"""An idempotency key whose submission was answered with a job that it did not create."""

from django.db import models


class AnsweredKey(models.Model):
    """Written where `unique_for` found another job, so that the key still means that job after it has ended. It is
    kept as long as the job."""

    project = models.ForeignKey("quotas.Project", on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    request_hash = models.CharField(max_length=64)
    job = models.ForeignKey("queues.Job", on_delete=models.CASCADE, related_name="answered_keys")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="one_answer_per_idempotency_key")]

    def __str__(self) -> str:
        return f"{self.key}: {self.job_id}"
