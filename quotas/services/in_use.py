"""What still needs a row that somebody wants to remove.

Foreign keys protect rows that refer to each other. This is for everything that they do not know: names in JSON and in
payloads, work that waits, credentials that callers use. Apps above register what they know of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model

from quotas.models import ApiKey, Policy, Pool, Project, Tier


@dataclass(frozen=True, slots=True)
class Use:
    """One reason why a row is needed. `end` makes an end of it, for somebody (`actor`) and for a reason; None where
    nothing but a change by hand does."""

    what: str
    end: Callable[[str, str], object] | None = None
    ends_as: str = ""
    """What `end` does, such as `cancels them`."""
    named: bool = False
    """It is another part of the configuration that names the row: `apply`, which sees all of it, checks that itself."""
    by_name: bool = False
    """Work that waits names the row, so that it would not find it under another name."""


Finder = Callable[[Any], Iterable[Use]]
_finders: dict[type[Model], list[Finder]] = {}


def register(model: type[Model], finder: Finder) -> None:
    """Call `finder` for the uses of a row of `model`, too."""
    finders = _finders.setdefault(model, [])
    if finder not in finders:
        finders.append(finder)


def uses(row: Model) -> list[Use]:
    """All that needs the row; what has to end first comes first."""
    return [use for finder in _finders.get(type(row), ()) for use in finder(row)]


def naming(row: Model) -> list[Use]:
    """What would not find the row any more under another name."""
    return [use for use in uses(row) if use.named or use.by_name]


def _pool(row: Pool) -> Iterable[Use]:
    for name, fallback in Pool.objects.exclude(pk=row.pk).values_list("name", "fallback"):
        if row.name in (fallback or ()):
            yield Use(f"pool {name} falls back to it", named=True)
    for name, adaptive in Policy.objects.exclude(adaptive=None).values_list("name", "adaptive"):
        if isinstance(adaptive, dict) and adaptive.get("pool") == row.name:
            yield Use(f"policy {name} adapts to it", named=True)


def _tier(row: Tier) -> Iterable[Use]:
    for slug in Project.objects.filter(tier=row).values_list("slug", flat=True):
        yield Use(f"project {slug} belongs to it", named=True)
    for name in Policy.objects.filter(tier=row).values_list("name", flat=True):
        yield Use(f"policy {name} is for it", named=True)


def _project(row: Project) -> Iterable[Use]:
    for name, slugs in Pool.objects.exclude(projects=None).values_list("name", "projects"):
        if row.slug in (slugs or ()):
            yield Use(f"pool {name} lists it", named=True)
    keys = ApiKey.objects.filter(project=row, revoked_at=None).count()
    if keys:
        yield Use(f"{keys} API key{'s' * (keys != 1)} of it in force", lambda actor, reason: None, "revokes them")


register(Pool, _pool)
register(Tier, _tier)
register(Project, _project)
