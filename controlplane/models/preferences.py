"""What a person has chosen for the pages of the admin."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Preferences(models.Model):
    """A person without a row uses the defaults."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="sluice_preferences"
    )
    time_zone = models.CharField(max_length=64, default="UTC", help_text="Times in the admin are shown in this zone.")

    class Meta:
        verbose_name_plural = "preferences"

    def __str__(self) -> str:
        return str(self.user)
