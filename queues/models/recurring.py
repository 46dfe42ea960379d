"""A job that is submitted at each tick of a cron expression."""

from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.names import name_validator


class Recurring(Versioned):
    UNVERSIONED = frozenset({"next_at", "last_at", "last_error"})

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    enabled = models.BooleanField(default=True)
    cron = models.CharField(max_length=100, help_text="Minute, hour, day, month, weekday, such as `0 3 * * *`.")
    timezone = models.CharField(
        max_length=64, default="UTC", verbose_name="time zone", help_text="Such as `UTC` or `Europe/Berlin`."
    )
    type = models.CharField(max_length=200)
    project = models.ForeignKey("quotas.Project", on_delete=models.CASCADE, related_name="recurring")
    queue = models.ForeignKey("queues.Queue", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    priority = models.PositiveSmallIntegerField(default=5)
    payload = models.JSONField(default=dict, blank=True)
    next_at = models.DateTimeField(null=True, editable=False)
    last_at = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=500, blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = "recurring job"

    def __str__(self) -> str:
        return self.name
