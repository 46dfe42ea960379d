"""A tenant: the party on whose behalf checks and jobs are made."""

import secrets

from django.core.validators import MinValueValidator
from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.encrypted import EncryptedTextField
from quotas.models.names import name_validator
from quotas.permissions import DECLARED


def new_space() -> str:
    return secrets.token_urlsafe(9)


class Project(Versioned):
    slug = models.CharField(max_length=63, unique=True, validators=[name_validator])
    name = models.CharField(max_length=200, blank=True)
    weight = models.PositiveIntegerField(
        default=1,
        validators=[MinValueValidator(1)],
        help_text="Share of the workers when several projects have queued jobs: 3 gets three times as many starts as 1.",
    )
    tier = models.ForeignKey("quotas.Tier", null=True, blank=True, on_delete=models.SET_NULL, related_name="projects")
    members = models.ManyToManyField(
        "auth.User",
        blank=True,
        related_name="sluice_projects",
        help_text="People who see only this project in the admin site.",
    )
    space = models.CharField(max_length=22, blank=True, default=new_space, editable=False)
    """Part of what names the project's counters: one that is deleted and made anew under the same slug finds no use."""
    webhook_secret = EncryptedTextField(null=True, editable=False)

    class Meta:
        ordering = ["slug"]
        permissions = DECLARED

    def __str__(self) -> str:
        return self.slug
