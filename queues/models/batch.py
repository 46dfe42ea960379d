"""Jobs that were submitted together, with their common progress."""

from django.db import models

from queues.ids import new_id


class Batch(models.Model):
    uid = models.CharField("ID", max_length=32, unique=True, default=new_id, editable=False)
    project = models.ForeignKey("quotas.Project", on_delete=models.PROTECT, related_name="batches")
    name = models.CharField(max_length=200, blank=True)
    callback_url = models.URLField("callback URL", max_length=1000, blank=True)
    then = models.ForeignKey(
        "queues.Job",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="closes",
        help_text="Runs when all jobs of the batch have ended, whatever their outcome.",
    )
    open = models.BooleanField(
        default=False, help_text="More jobs may be added. The batch is complete only after it is sealed."
    )
    sealed = models.BooleanField(default=False, help_text="No more jobs can be added.")
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    request_hash = models.CharField(max_length=64, blank=True)
    pruned = models.JSONField(
        default=dict, editable=False, help_text="Jobs by status that were counted here before retention removed them."
    )
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "batches"
        constraints = [
            models.UniqueConstraint(
                fields=["project", "idempotency_key"],
                condition=models.Q(idempotency_key__isnull=False),
                name="one_batch_per_idempotency_key",
            )
        ]

    def __str__(self) -> str:
        return self.name or self.uid


class BatchAnswer(models.Model):
    """The ids that the first request of a batch with an idempotency key got, for its repetitions: a batch grows, and
    some of the jobs may be another one's. Apart from the batch, which is read often, and with each of its jobs."""

    batch = models.OneToOneField(Batch, primary_key=True, on_delete=models.CASCADE, related_name="answer")
    ids = models.JSONField()

    def __str__(self) -> str:
        return f"answer of {self.batch_id}"
