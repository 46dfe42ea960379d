"""Where an adaptive policy's limit is now: the truth that all processes read and that outlives Redis."""

from django.db import models


class AdaptiveState(models.Model):
    policy = models.OneToOneField("quotas.Policy", on_delete=models.CASCADE, related_name="adapted")
    configured = models.BigIntegerField(
        help_text="The policy's own limit when it began to move; another one begins anew."
    )
    effective = models.BigIntegerField()
    why = models.CharField(max_length=500, blank=True)
    changed_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.policy_id}: {self.effective}"
