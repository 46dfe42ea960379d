"""Another limit for one subject of a policy, until a time and for a reason."""

from django.db import models

from quotas.models.config_version import Versioned


class Override(Versioned):
    policy = models.ForeignKey("quotas.Policy", on_delete=models.CASCADE, related_name="overrides")
    key = models.CharField(max_length=1024, help_text="The subject: a user, a project, a key's value.")
    project = models.ForeignKey(
        "quotas.Project",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        help_text="Leave blank to apply in every project.",
    )
    limit = models.BigIntegerField(null=True, blank=True, help_text="0 blocks everything; blank = unlimited.")
    until = models.DateTimeField(null=True, blank=True, help_text="Leave blank for no end.")
    reason = models.CharField(max_length=500)

    class Meta:
        ordering = ["policy__name", "key"]

    def __str__(self) -> str:
        return f"{self.policy} · {self.key}"
