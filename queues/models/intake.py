"""Jobs of a large batch that are accepted and are not yet rows of their own."""

from django.db import models


class IntakePart(models.Model):
    """A part of a bulk. All parts are written in the one transaction that accepts the bulk, and each is turned into
    rows in a short transaction of its own, so that no other submitter waits for ten thousand rows."""

    project = models.ForeignKey("quotas.Project", on_delete=models.PROTECT, related_name="+")
    batch = models.ForeignKey("queues.Batch", on_delete=models.PROTECT, related_name="parts")
    count = models.PositiveIntegerField()
    queues = models.JSONField(help_text="Jobs by the id of their queue.")
    pools = models.JSONField(help_text="Pools that the jobs name.")
    names = models.JSONField(help_text="Idempotency keys and unique keys of the jobs.")
    rows = models.TextField(help_text="The jobs as JSON.")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.count} jobs of batch {self.batch_id}"
