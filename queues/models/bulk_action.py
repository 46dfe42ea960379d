"""An action on many rows that runs in the background, with its progress."""

from django.db import models

from queues.ids import new_id
from quotas import clock


class BulkAction(models.Model):
    uid = models.CharField("ID", max_length=32, unique=True, default=new_id, editable=False)
    verb = models.CharField(max_length=32)
    target = models.CharField(
        max_length=64,
        default="letters",
        help_text="What it acts on: letters, jobs, or a model such as `quotas.account`.",
    )
    filter = models.JSONField(
        default=dict, help_text="Chooses letters or jobs; of other rows the primary keys (`rows`)."
    )
    project = models.ForeignKey("quotas.Project", null=True, on_delete=models.CASCADE)
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    total = models.PositiveIntegerField(default=0, help_text="Rows that matched when it began.")
    done = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    refused = models.JSONField(default=list, help_text="The first rows that were skipped, each with the reason.")
    last_id = models.BigIntegerField(default=0, help_text="The last row that was handled.")
    created_at = models.DateTimeField(default=clock.now)
    starts_at = models.DateTimeField(null=True, help_text="Nothing is done before. Until then it can be undone.")
    finished_at = models.DateTimeField(null=True)
    stopped_by = models.CharField(max_length=200, blank=True, help_text="Who ended it before it was done.")
    stopped_why = models.CharField(max_length=200, blank=True, help_text="Why Sluice ended it before it was done.")

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.verb} {self.done}/{self.total}"
