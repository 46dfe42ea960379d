"""A number that goes up with every change of configuration, so that snapshots know when they are old."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from django.db import connections, models, router, transaction
from django.db.models import F


class ConfigVersion(models.Model):
    """One row. Changed in the transaction of the change itself: a snapshot can't miss one."""

    version = models.BigIntegerField(default=0)
    moved = models.BigIntegerField(default=0)
    """Goes up when an adaptive limit moves: no configuration, and so no reason to read all of it again."""

    @classmethod
    def current(cls) -> int:
        return cls.numbers()[0]

    @classmethod
    def numbers(cls) -> tuple[int, int]:
        """(version, moved)"""
        # Composing it takes the ORM longer than SQL takes to answer it.
        with connections[router.db_for_read(cls)].cursor() as cursor:
            cursor.execute('SELECT "version", "moved" FROM "quotas_configversion" WHERE "id" = 1')
            return cursor.fetchone() or (0, 0)

    @classmethod
    def announce_move(cls) -> None:
        if not cls.objects.filter(pk=1).update(moved=F("moved") + 1):
            cls.objects.get_or_create(pk=1, defaults={"moved": 1})

    @classmethod
    def bump(cls) -> None:
        if not cls.objects.filter(pk=1).update(version=F("version") + 1):
            cls.objects.get_or_create(pk=1, defaults={"version": 1})


M = TypeVar("M", bound="Versioned")


class VersionedQuerySet(models.QuerySet[M]):
    """Changes of many rows outdate snapshots too, unless only columns change that no snapshot contains."""

    def update(self, **columns: Any) -> int:
        with transaction.atomic(using=self.db):
            changed = super().update(**columns)
            if changed and not self.model.UNVERSIONED.issuperset(columns):
                ConfigVersion.bump()
        return changed

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=self.db):
            deleted = super().delete()
            ConfigVersion.bump()
        return deleted

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic(using=self.db):
            made = super().bulk_create(objs, *args, **kwargs)
            ConfigVersion.bump()
        return made


class Versioned(models.Model):
    """A row of configuration: saving or deleting it outdates every process's snapshot, in the same transaction."""

    UNVERSIONED: ClassVar[frozenset[str]] = frozenset()
    """Columns that are no configuration."""

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = VersionedQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            named = kwargs.get("update_fields")
            if named is None or not self.UNVERSIONED.issuperset(named):
                ConfigVersion.bump()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            deleted = super().delete(*args, **kwargs)
            ConfigVersion.bump()
        return deleted
