"""An action on many dead letters that runs in the background, with its progress."""

from django.db import models

from queues.ids import new_id


class BulkAction(models.Model):
    uid = models.CharField("ID", max_length=32, unique=True, default=new_id, editable=False)
    verb = models.CharField(max_length=16)
    filter = models.JSONField(default=dict)
    project = models.ForeignKey("quotas.Project", null=True, on_delete=models.CASCADE)
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    total = models.PositiveIntegerField(default=0, help_text="Rows that matched when it began.")
    done = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    last_id = models.BigIntegerField(default=0, help_text="The last row that was handled.")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.verb} {self.done}/{self.total}"
