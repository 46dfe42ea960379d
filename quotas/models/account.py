"""One API account: its credential, encrypted, and the last that is known of its health."""

from __future__ import annotations

from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.encrypted import EncryptedTextField
from quotas.models.names import name_validator


class Account(Versioned):
    """Health columns are a copy of Redis's state, written every few seconds and at each transition."""

    UNVERSIONED = frozenset(
        {
            "state", "until", "why", "health", "successes", "errors", "learned", "latency", "last_used", "last_error",
            "last_error_at",
        }
    )  # fmt: skip

    pool = models.ForeignKey("quotas.Pool", on_delete=models.CASCADE, related_name="accounts")
    name = models.CharField(max_length=63, validators=[name_validator])
    credential = EncryptedTextField(help_text="Encrypted at rest and never shown again.")
    credential_env = models.CharField(
        max_length=128, blank=True, help_text="Environment variable that `apply` reads the credential from."
    )
    weight = models.PositiveIntegerField(default=1)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=500, blank=True)

    state = models.CharField(max_length=16, default="available", editable=False)
    until = models.DateTimeField(null=True, blank=True, editable=False)
    why = models.CharField(max_length=500, blank=True, editable=False)
    health = models.FloatField(default=1.0, editable=False)
    successes = models.BigIntegerField(default=0, editable=False)
    errors = models.JSONField(default=dict, editable=False)
    learned = models.JSONField(default=dict, editable=False)
    latency = models.FloatField(null=True, editable=False)
    last_used = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=500, blank=True, editable=False)
    last_error_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["pool__name", "pk"]
        constraints = [models.UniqueConstraint(fields=["pool", "name"], name="one_account_name")]

    def __str__(self) -> str:
        return f"{self.pool}/{self.name}"
