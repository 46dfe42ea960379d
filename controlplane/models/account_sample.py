"""The state of an account in one minute, for the chart on its page. After two days one is kept for each hour."""

from __future__ import annotations

from django.db import models


class AccountSample(models.Model):
    account = models.ForeignKey("quotas.Account", on_delete=models.CASCADE, related_name="samples", db_index=False)
    at = models.DateTimeField(help_text="Start of the minute.")
    health = models.FloatField(help_text="Lowest in the minute.")
    state = models.CharField(max_length=16, help_text="Worst in the minute.")
    succeeded = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    latency = models.FloatField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "at"], name="one_sample_a_minute")]
        indexes = [models.Index(fields=["at"], name="sample_by_time")]

    def __str__(self) -> str:
        return f"{self.account_id} at {self.at:%Y-%m-%d %H:%M}"
