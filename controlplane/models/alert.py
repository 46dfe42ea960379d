"""A problem: one open row for each kind and subject, however often it is seen."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from queues.ids import new_id


class Alert(models.Model):
    uid = models.CharField(max_length=32, unique=True, default=new_id, editable=False)
    kind = models.CharField(max_length=32)
    subject = models.CharField(max_length=300)
    project = models.CharField(max_length=63, blank=True)
    severity = models.CharField(max_length=16, choices=[(word, word) for word in ("info", "warning", "critical")])
    summary = models.CharField(max_length=500)
    facts = models.JSONField(default=dict)
    opened_at = models.DateTimeField()
    last_seen = models.DateTimeField()
    count = models.PositiveBigIntegerField(default=1)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=200, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=200, blank=True, help_text="Blank: resolved automatically.")

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "subject"], condition=Q(resolved_at__isnull=True), name="one_open_alert"
            )
        ]
        indexes = [models.Index(fields=["kind", "subject", "-id"], name="alert_by_place")]

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}"
