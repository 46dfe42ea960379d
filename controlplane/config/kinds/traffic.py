"""Sections `networks` and `cost_rules`."""

from __future__ import annotations

from controlplane.config import readers
from controlplane.config.kinds.base import Kind
from controlplane.config.records import Item, Member, Record
from quotas.models import CostRule, Network


class Networks(Kind):
    section, word = "networks", "network"
    record = Record(
        (
            Member("name", readers.name),
            Member("action", readers.choice(("allow", "deny"))),
            Member("cidrs", readers.listed(readers.cidr)),
        )
    )

    def stored(self) -> dict[str, Item]:
        return {
            row.name: {"name": row.name, "action": row.action, "cidrs": list(row.cidrs)}
            for row in Network.objects.all()
        }

    def save(self, item: Item, before: Item | None) -> None:
        row = Network.objects.filter(name=item["name"]).first() or Network(name=item["name"])
        row.action, row.cidrs = item["action"], item["cidrs"]
        row.save()

    def row(self, item: Item) -> Network | None:
        return Network.objects.filter(name=item["name"]).first()


class CostRules(Kind):
    section, word = "cost_rules", "cost rule"
    record = Record((Member("match", readers.pattern), Member("cost", readers.cost)))

    def key(self, item: Item) -> str:
        return str(item["match"])

    def stored(self) -> dict[str, Item]:
        return {row.match: {"match": row.match, "cost": dict(row.cost)} for row in CostRule.objects.all()}

    def save(self, item: Item, before: Item | None) -> None:
        row = CostRule.objects.filter(match=item["match"]).first() or CostRule(match=item["match"])
        row.cost = item["cost"]
        row.save()

    def row(self, item: Item) -> CostRule | None:
        return CostRule.objects.filter(match=item["match"]).first()
