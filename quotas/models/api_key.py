"""A bearer of scopes, bound to one project or to the platform. Only a hash of the secret is kept."""

from __future__ import annotations

from django.db import models

SCOPES = ("check", "submit", "call", "read", "operate", "admin", "bypass")


class ApiKey(models.Model):
    prefix = models.CharField(max_length=16, unique=True)
    secret_hash = models.CharField(max_length=64, editable=False)
    name = models.CharField(max_length=200)
    project = models.ForeignKey(
        "quotas.Project",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="api_keys",
        help_text="Leave blank for a platform key, which is valid for every project.",
    )
    scopes = models.JSONField(default=list)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} (sl_{self.prefix}_…)"
