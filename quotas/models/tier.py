"""A plan that projects and users belong to; policies may apply to one tier only."""

from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.names import name_validator


class Tier(Versioned):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class TierUser(Versioned):
    """One user, by the caller's own id, in a tier."""

    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, related_name="users")
    user = models.CharField(max_length=1024)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tier", "user"], name="one_tier_user")]

    def __str__(self) -> str:
        return self.user
