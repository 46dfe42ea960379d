"""A number that goes up with every change of configuration, so that snapshots know when they are old."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F


class ConfigVersion(models.Model):
    """One row. Changed in the transaction of the change itself: a snapshot can't miss one."""

    version = models.BigIntegerField(default=0)

    @classmethod
    def current(cls) -> int:
        return cls.objects.values_list("version", flat=True).filter(pk=1).first() or 0

    @classmethod
    def bump(cls) -> None:
        if not cls.objects.filter(pk=1).update(version=F("version") + 1):
            cls.objects.get_or_create(pk=1, defaults={"version": 1})


class Versioned(models.Model):
    """A row of configuration: saving or deleting it outdates every process's snapshot."""

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        ConfigVersion.bump()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        deleted = super().delete(*args, **kwargs)
        ConfigVersion.bump()
        return deleted
