"""A job that was given up, until an operator handles it."""

from django.db import models

from queues.ids import new_id


class DeadLetter(models.Model):
    uid = models.CharField("ID", max_length=32, unique=True, default=new_id, editable=False)
    job = models.ForeignKey("queues.Job", on_delete=models.CASCADE, related_name="dead_letters")
    project = models.ForeignKey("quotas.Project", on_delete=models.PROTECT, related_name="dead_letters")
    queue = models.ForeignKey("queues.Queue", on_delete=models.PROTECT, related_name="dead_letters")
    type = models.CharField(max_length=200)
    category = models.CharField(max_length=32)
    severity = models.CharField(max_length=16, choices=[(word, word) for word in ("info", "warning", "critical")])
    fingerprint = models.CharField(max_length=32)
    error = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0, verbose_name="total attempts")
    payload = models.JSONField(
        null=True,
        blank=True,
        help_text="The payload that failed, where a replay has replaced the job's; null: the job's.",
    )
    created_at = models.DateTimeField()
    handled_at = models.DateTimeField("resolved at", null=True, blank=True)
    handled_by = models.CharField("resolved by", max_length=200, blank=True)
    handled_as = models.CharField(
        "resolution", max_length=16, blank=True, choices=[("replayed", "Replayed"), ("discarded", "Discarded")]
    )
    handled_reason = models.CharField("reason", max_length=500, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["category", "-id"], name="letter_by_category"),
            models.Index(fields=["fingerprint", "created_at"], name="letter_by_fingerprint"),
            models.Index(
                fields=["fingerprint", "handled_at"],
                condition=models.Q(handled_at__isnull=False),
                name="letter_resolved",
            ),
            models.Index(
                fields=["fingerprint", "category", "severity", "type", "created_at"],
                condition=models.Q(handled_at__isnull=True),
                name="letter_open_groups",
            ),
            models.Index(fields=["-id"], condition=models.Q(handled_at__isnull=True), name="letter_open"),
            models.Index(
                fields=["category", "-id"], condition=models.Q(handled_at__isnull=True), name="letter_open_by_category"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.category}: {self.type} {self.uid}"
