"""A notice for a rule's address, kept until it is delivered or a day has passed: an outbox."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from queues.ids import new_id


class AlertNotice(models.Model):
    """Written with its content in the transaction that opens, raises or ends the alert."""

    uid = models.CharField(max_length=32, unique=True, default=new_id, editable=False)
    alert = models.ForeignKey("controlplane.Alert", on_delete=models.CASCADE, related_name="notices")
    rule = models.ForeignKey("controlplane.AlertRule", on_delete=models.CASCADE, related_name="notices")
    event = models.CharField(max_length=16, choices=[(word, word) for word in ("raised", "resolved")])
    title = models.CharField(max_length=600, blank=True)
    text = models.TextField(blank=True)
    document = models.JSONField(default=dict, help_text="What a webhook gets, as it was when it happened.")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True, help_text="Next attempt. Blank: delivered or given up.")
    tries = models.PositiveIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="notice_due")]

    def __str__(self) -> str:
        return f"{self.event} {self.alert}"
