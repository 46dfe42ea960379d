"""How much was used, rolled up by minute, hour and day."""

from django.db import models


class UsageRollup(models.Model):
    policy = models.ForeignKey("quotas.Policy", on_delete=models.CASCADE, related_name="rollups")
    project = models.CharField(max_length=63, blank=True)
    key = models.CharField(max_length=1024)
    resolution = models.CharField(max_length=8)
    start = models.DateTimeField()
    used = models.BigIntegerField(default=0)
    denied = models.BigIntegerField(default=0)
    limit = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["policy", "resolution", "start", "project", "key"], name="one_rollup")
        ]
        indexes = [models.Index(fields=["resolution", "start"], name="rollup_by_start")]

    def __str__(self) -> str:
        return f"{self.policy_id} {self.key} {self.start}"
