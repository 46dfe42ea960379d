"""Where which alerts are sent. The address is a secret: with it, anybody could write to that channel."""

from __future__ import annotations

from django.db import models

from quotas.models.encrypted import EncryptedTextField
from quotas.models.names import name_validator


class AlertRule(models.Model):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    when = models.JSONField(default=list, help_text="Kinds of alerts to send.")
    conditions = models.JSONField(
        default=list,
        blank=True,
        help_text="Counts and shares that raise an alert of their own, such as `dead_letters > 5% in 10m`.",
    )
    to = EncryptedTextField(help_text="Encrypted at rest and never shown again.")
    to_env = models.CharField(
        max_length=128, blank=True, help_text="Environment variable that `apply` reads the address from."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
