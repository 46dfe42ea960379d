"""The highest share of a limit that a subject has crossed, so that each crossing emits one event."""

from django.db import models


class ThresholdMark(models.Model):
    policy = models.ForeignKey("quotas.Policy", on_delete=models.CASCADE, related_name="marks")
    project = models.CharField(max_length=63, blank=True)
    key = models.CharField(max_length=1024)
    share = models.FloatField()
    since = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["policy", "project", "key"], name="one_mark")]

    def __str__(self) -> str:
        return f"{self.policy_id} {self.key} {self.share:.0%}"
