"""A group of failures that operators ignore until a time."""

from django.db import models


class IgnoredFailure(models.Model):
    """Dead letters of a project with this fingerprint raise no alert and no notice, and are not among the failures to
    be handled, until then."""

    project = models.ForeignKey("quotas.Project", on_delete=models.CASCADE, related_name="+", db_index=False)
    fingerprint = models.CharField(max_length=32)
    until = models.DateTimeField()
    ignored_at = models.DateTimeField()
    ignored_by = models.CharField(max_length=200)
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["until"]
        constraints = [models.UniqueConstraint(fields=["project", "fingerprint"], name="one_ignore_of_a_failure")]

    def __str__(self) -> str:
        return f"{self.fingerprint} until {self.until:%Y-%m-%d %H:%M:%S} UTC"
