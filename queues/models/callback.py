"""A notice to a caller's address that a job or a batch has ended, until it is delivered or a day has passed."""

from django.db import models

from queues.ids import new_id


class Callback(models.Model):
    """Written with its content in the transaction that ends the job: an outbox, independent of the rows it is about."""

    uid = models.CharField(max_length=32, unique=True, default=new_id, editable=False)
    project = models.ForeignKey("quotas.Project", on_delete=models.CASCADE, related_name="+")
    job = models.ForeignKey("queues.Job", null=True, on_delete=models.SET_NULL, related_name="callbacks")
    batch = models.ForeignKey("queues.Batch", null=True, on_delete=models.SET_NULL, related_name="callbacks")
    url = models.URLField(max_length=1000)
    receiver = models.CharField(max_length=300, blank=True, help_text="Scheme, host and port of the address.")
    event = models.CharField(max_length=32)
    body = models.TextField(blank=True, help_text="What is sent, as it was when it happened; blank once it is over.")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True, help_text="Next try; blank: delivered or given up.")
    tries = models.PositiveIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["due_at"], condition=models.Q(due_at__isnull=False), name="callback_due")]

    def __str__(self) -> str:
        return f"{self.event} {self.uid}"
