"""Sections `policies` and `overrides`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from controlplane.config import readers
from controlplane.config.document import Mistake, Node
from controlplane.config.kinds import limits
from controlplane.config.kinds.base import Kind, Reference
from controlplane.config.records import Item, Member, Record, duration
from quotas.engine.types import ALGORITHMS
from quotas.models import Override, Policy, Project, Tier
from quotas.models.policy import Mode, OnRedisDown, PausedPriorities, Scope, default_warnings
from quotas.snapshot.adaptive_rule import AdaptiveRule
from quotas.times import rfc3339

_PLAIN = (
    "name", "enabled", "scope", "key_name", "match", "unit", "algorithm", "limit", "window", "burst", "period",
    "timezone", "lease_ttl", "mode", "on_redis_down", "pause_at", "pause", "exempt", "excluded_paths", "adaptive",
)  # fmt: skip


def _adaptive(node: Node) -> dict[str, Any]:
    record = Record(
        (
            Member("floor", readers.whole(1)),
            Member("ceiling", readers.whole(1)),
            Member("errors", readers.positive_share, 0.2),
            Member("latency", readers.nullable(readers.seconds(0.001, 3600.0)), None),
            Member("use", readers.positive_share, 0.9),
            Member("pool", readers.nullable(readers.name), None),
            Member("increase", readers.positive_share, 0.05),
            Member("decrease", readers.positive_share, 0.3),
            Member("interval", readers.seconds(1.0, 3600.0), 5.0),
            Member("samples", readers.whole(1, 1_000_000), 10),
        )
    )
    try:
        return AdaptiveRule.of(record.read(node)).document()
    except ValueError as error:
        raise node.wrong(str(error)) from None


def _check(node: Node, item: Item) -> None:
    limits.check(node, item)

    def at(member: str) -> Node:
        found: Node = node.data.get(member, node)
        return found

    scope = item["scope"]
    if scope == "custom" and not item["key_name"]:
        raise node.wrong("scope custom needs a key_name: the member of `keys` that is counted")
    if scope != "custom" and item["key_name"]:
        raise at("key_name").wrong(f"scope {scope} has no key_name")
    if scope not in ("endpoint", "queue") and item["match"]:
        raise at("match").wrong(f"scope {scope} has no match")
    if scope == "endpoint":
        readers.pattern(Node(at("match").line, at("match").path, item["match"]))
    if scope == "queue" and item["match"]:
        readers.name(Node(at("match").line, at("match").path, item["match"]))
    if scope == "ip":
        for subject in item["exempt"]:
            _address_or_network(at("exempt"), subject)
    if item["adaptive"] is not None and item["limit"] is None:
        raise at("adaptive").wrong("an adaptive policy needs a limit to start from")


def _address_or_network(node: Node, subject: str) -> None:
    try:
        readers.cidr(Node(node.line, node.path, subject))
    except Mistake:
        raise node.wrong(f"{subject!r} is neither an address nor a network") from None


class Policies(Kind):
    section, word = "policies", "policy"
    record = Record(
        (
            Member("name", readers.name),
            Member("enabled", readers.flag, True),
            Member("scope", readers.choice(Scope.values)),
            Member("key_name", readers.name, ""),
            Member("match", readers.text(500, blank=True), ""),
            Member("project", readers.nullable(readers.name), None),
            Member("tier", readers.nullable(readers.name), None),
            Member("unit", readers.unit, "requests"),
            Member("algorithm", readers.choice(ALGORITHMS)),
            Member("limit", readers.nullable(readers.whole())),
            duration("window", readers.nullable(readers.seconds(0.001)), None),
            Member("burst", readers.nullable(readers.whole(1)), None),
            Member("period", readers.choice(("day", "week", "month")), ""),
            Member("timezone", readers.timezone, "UTC"),
            duration("lease_ttl", readers.seconds(0.1, 86400.0), 60.0),
            Member("mode", readers.choice(Mode.values), "enforce"),
            Member("on_redis_down", readers.choice(OnRedisDown.values), "fail_closed"),
            Member("warn_at", readers.listed(readers.positive_share, most=10), default_warnings),
            Member("pause_at", readers.nullable(readers.positive_share), None),
            Member("pause", readers.choice(PausedPriorities.values), "low"),
            Member("exempt", readers.listed(readers.text(1024)), list),
            Member("excluded_paths", readers.listed(readers.pattern), list),
            Member("adaptive", readers.nullable(_adaptive), None),
        ),
        _check,
    )

    def references(self, item: Item) -> Iterable[Reference]:
        if item["project"] is not None:
            yield "projects", item["project"], "project"
        if item["tier"] is not None:
            yield "tiers", item["tier"], "tier"
        if item["scope"] == "queue" and item["match"]:
            yield "queues", item["match"], "match"
        if item["adaptive"] is not None and item["adaptive"].get("pool"):
            yield "pools", item["adaptive"]["pool"], "adaptive"

    def stored(self) -> dict[str, Item]:
        return {row.name: self._item(row) for row in Policy.objects.select_related("project", "tier")}

    def _item(self, row: Policy) -> Item:
        values = {name: getattr(row, name) for name in _PLAIN}
        values["project"] = row.project.slug if row.project else None
        values["tier"] = row.tier.name if row.tier else None
        values["warn_at"] = list(row.warn_at)
        values["adaptive"] = AdaptiveRule.of(row.adaptive).document() if row.adaptive else None
        return {member.name: values[member.name] for member in self.record.members}

    def save(self, item: Item, before: Item | None) -> None:
        row = Policy.objects.filter(name=item["name"]).first() or Policy()
        for name in (*_PLAIN, "warn_at"):
            setattr(row, name, item[name])
        row.project = Project.objects.get(slug=item["project"]) if item["project"] is not None else None
        row.tier = Tier.objects.get(name=item["tier"]) if item["tier"] is not None else None
        if before is not None and limits.starts_anew(item, before):
            row.begin_anew()
        row.save()

    def row(self, item: Item) -> Policy | None:
        return Policy.objects.filter(name=item["name"]).first()


class Overrides(Kind):
    section, word = "overrides", "override"
    record = Record(
        (
            Member("policy", readers.name),
            Member("key", readers.text(1024)),
            Member("project", readers.nullable(readers.name), None),
            Member("limit", readers.nullable(readers.whole())),
            Member("until", readers.nullable(readers.moment), None),
            Member("reason", readers.text(500)),
        )
    )

    def key(self, item: Item) -> str:
        return " · ".join((item["policy"], item["project"] or "*", item["key"]))

    def references(self, item: Item) -> Iterable[Reference]:
        yield "policies", item["policy"], "policy"
        if item["project"] is not None:
            yield "projects", item["project"], "project"

    def stored(self) -> dict[str, Item]:
        items = [
            {
                "policy": row.policy.name,
                "key": row.key,
                "project": row.project.slug if row.project else None,
                "limit": row.limit,
                "until": rfc3339(row.until),
                "reason": row.reason,
            }
            for row in Override.objects.select_related("policy", "project")
        ]
        return {self.key(item): item for item in items}

    def save(self, item: Item, before: Item | None) -> None:
        project = Project.objects.get(slug=item["project"]) if item["project"] is not None else None
        policy = Policy.objects.get(name=item["policy"])
        found = Override.objects.filter(policy=policy, key=item["key"], project=project).first()
        row = found or Override(policy=policy, key=item["key"], project=project)
        row.limit, row.reason = item["limit"], item["reason"]
        row.until = datetime.fromisoformat(item["until"]) if item["until"] else None
        row.save()

    def row(self, item: Item) -> Override | None:
        about = {"project__slug": item["project"]} if item["project"] else {"project": None}
        return Override.objects.filter(policy__name=item["policy"], key=item["key"], **about).first()
