"""Sections `tiers` and `projects`."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.config import readers
from controlplane.config.kinds.base import Kind, Reference
from controlplane.config.records import Item, Member, Record
from quotas.models import Project, Tier, TierUser


class Tiers(Kind):
    section, word = "tiers", "tier"
    record = Record(
        (Member("name", readers.name), Member("users", readers.listed(readers.text(1024)), list)),
    )

    def stored(self) -> dict[str, Item]:
        tiers = Tier.objects.prefetch_related("users")
        return {tier.name: {"name": tier.name, "users": sorted(row.user for row in tier.users.all())} for tier in tiers}

    def same(self, item: Item, before: Item) -> bool:
        return bool(sorted(item["users"]) == before["users"])

    def save(self, item: Item, before: Item | None) -> None:
        tier, _ = Tier.objects.get_or_create(name=item["name"])
        was, now = set(before["users"] if before else ()), set(item["users"])
        tier.users.filter(user__in=was - now).delete()
        TierUser.objects.bulk_create(TierUser(tier=tier, user=user) for user in sorted(now - was))

    def row(self, item: Item) -> Tier | None:
        return Tier.objects.filter(name=item["name"]).first()


class Projects(Kind):
    section, word = "projects", "project"
    record = Record(
        (
            Member("slug", readers.name),
            Member("name", readers.text(200, blank=True), ""),
            Member("weight", readers.whole(1, 1000), 1),
            Member("tier", readers.nullable(readers.name), None),
        )
    )

    def key(self, item: Item) -> str:
        return str(item["slug"])

    def references(self, item: Item) -> Iterable[Reference]:
        if item["tier"] is not None:
            yield "tiers", item["tier"], "tier"

    def stored(self) -> dict[str, Item]:
        return {
            row.slug: {
                "slug": row.slug,
                "name": row.name,
                "weight": row.weight,
                "tier": row.tier.name if row.tier else None,
            }
            for row in Project.objects.select_related("tier")
        }

    def save(self, item: Item, before: Item | None) -> None:
        row = Project.objects.filter(slug=item["slug"]).first() or Project(slug=item["slug"])
        row.name, row.weight = item["name"], item["weight"]
        row.tier = Tier.objects.get(name=item["tier"]) if item["tier"] is not None else None
        row.save()

    def row(self, item: Item) -> Project | None:
        return Project.objects.filter(slug=item["slug"]).first()
