"""Which pools a job may name: those that exist, and that are for its project."""

from __future__ import annotations

from collections.abc import Collection

from queues.errors import FieldError, NoSuchPool
from quotas.models import Pool
from quotas.snapshot import resolve


class KnownPools:
    """The pools as this process has them, for one submission; what is newer is looked up in SQL."""

    def __init__(self) -> None:
        self._held = resolve.snapshot().pools
        self._newer: dict[str, Collection[str] | None] = {}

    def check(self, name: str, project: str, pointer: str, detail: str) -> None:
        """Raises `NoSuchPool` with `detail`, which is the same for a pool that is missing and one that is others'."""
        held = self._held.get(name)
        if held is not None and held.is_open_to(project):
            return
        if held is None and name not in self._newer:
            found = Pool.objects.filter(name=name).values_list("projects", flat=True)
            if not found:
                raise NoSuchPool([FieldError(pointer, detail)], of_others=False)
            self._newer[name] = found[0]
        projects = held.projects if held is not None else self._newer[name]
        if projects is not None and project not in projects:
            raise NoSuchPool([FieldError(pointer, detail)], of_others=True)
