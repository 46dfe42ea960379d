"""Section `pools`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controlplane.config import readers
from controlplane.config.document import Node
from controlplane.config.kinds import limits, pool_accounts
from controlplane.config.kinds.base import Kind, Reference
from controlplane.config.kinds.pool_accounts import ACCOUNT
from controlplane.config.records import Item, Member, Record, duration, read_list
from quotas.models import Pool, PoolLimit, Provider, StickyBy
from quotas.models.policy import PausedPriorities
from quotas.models.pool import Strategy

_LIMIT = Record(
    (
        Member("unit", readers.unit, "requests"),
        Member("algorithm", readers.choice(limits.WINDOWED | {"calendar"}), "token_bucket"),
        Member("limit", readers.nullable(readers.whole())),
        duration("window", readers.nullable(readers.seconds(0.001)), None),
        Member("burst", readers.nullable(readers.whole(1)), None),
        Member("period", readers.choice(("day", "week", "month")), ""),
        Member("timezone", readers.timezone, "UTC"),
        Member("per_key", readers.flag, False),
        Member("key_match", readers.text(200), ""),
    ),
    limits.check,
)
_CONCURRENCY = Record(
    (
        Member("initial", readers.whole(0, 100_000)),
        Member("floor", readers.nullable(readers.whole(0, 100_000)), None),
        Member("ceiling", readers.nullable(readers.whole(0, 100_000)), None),
    )
)
_BREAKER = Record(
    (
        Member("failures", readers.whole(1, 1_000_000), 5),
        duration("window", readers.seconds(0.1), 60.0),
        duration("open_for", readers.seconds(0.1), 60.0),
        Member("probes", readers.whole(1, 1000), 1),
    )
)
_COOLDOWN = Record(
    (duration("default", readers.seconds(), 60.0), duration("max", readers.seconds(), 3600.0)),
)


def _limit_key(item: Item) -> tuple[Any, ...]:
    return item["unit"], item["algorithm"], item["window"], item["period"], item["per_key"], item["key_match"]


def _limits(node: Node) -> list[Item]:
    return read_list(_LIMIT, node, _limit_key)[0]


def _concurrency(node: Node) -> Item:
    item = _CONCURRENCY.read(node)
    floor = item["initial"] if item["floor"] is None else item["floor"]
    ceiling = item["initial"] if item["ceiling"] is None else item["ceiling"]
    if not floor <= item["initial"] <= ceiling:
        raise node.wrong("must have floor ≤ initial ≤ ceiling")
    return item


def _cooldown(node: Node) -> Item:
    item = _COOLDOWN.read(node)
    if item["default"] > item["max"]:
        raise node.wrong("the default is above the maximum")
    return item


def _sticky(node: Node) -> bool | str:
    if node.data == "prefix":
        return "prefix"
    if isinstance(node.data, bool):
        return node.data
    raise node.wrong("must be true, false or prefix")


def _filled(record: Record) -> Item:
    return {member.name: member.filled() for member in record.members}


def _check(node: Node, item: Item) -> None:
    if item["name"] in item["fallback"]:
        raise node.data["fallback"].wrong("a pool is no fallback of its own")


class Pools(Kind):
    """Without `enabled`, the account stays as an operator has set it."""

    section, word = "pools", "pool"
    record = Record(
        (
            Member("name", readers.name),
            Member("provider", readers.name),
            Member("strategy", readers.choice(Strategy.values), "round_robin"),
            Member("limits", _limits, list, lambda items: [_LIMIT.show(item) for item in items]),
            Member(
                "concurrency",
                readers.nullable(_concurrency),
                None,
                lambda item: None if item is None else _CONCURRENCY.show(item),
            ),
            Member("breaker", _BREAKER.read, lambda: _filled(_BREAKER), _BREAKER.show),
            Member("cooldown", _cooldown, lambda: _filled(_COOLDOWN), _COOLDOWN.show),
            Member("pause_at", readers.nullable(readers.positive_share), 0.8),
            Member("pause", readers.choice(PausedPriorities.values), "low"),
            Member("fallback", readers.listed(readers.name), list),
            Member("sticky", _sticky, False),
            Member("projects", readers.nullable(readers.listed(readers.name)), None),
            Member("tries", readers.whole(1, 100), 3),
            Member("repeat_unsafe", readers.flag, False),
            Member("show_provider_limits", readers.flag, False),
            Member("accounts", ACCOUNT.listed("name"), list, lambda items: [ACCOUNT.show(item) for item in items]),
        ),
        _check,
    )

    def references(self, item: Item) -> Iterable[Reference]:
        yield "providers", item["provider"], "provider"
        for name in item["fallback"]:
            yield "pools", name, "fallback"
        for slug in item["projects"] or ():
            yield "projects", slug, "projects"

    def problem(self, item: Item, before: Item | None) -> tuple[str, str] | None:
        wrong = pool_accounts.problem(item["accounts"], before["accounts"] if before else [])
        return None if wrong is None else ("accounts", wrong)

    def stored(self) -> dict[str, Item]:
        rows = Pool.objects.select_related("provider").prefetch_related("limits", "accounts")
        return {row.name: _pool_item(row) for row in rows}

    def same(self, item: Item, before: Item) -> bool:
        return not self.differences(item, before)

    def differences(self, item: Item, before: Item) -> dict[str, tuple[Any, Any]]:
        enabled = {account["name"]: account["enabled"] for account in before["accounts"]}
        accounts = [
            {**account, "enabled": enabled.get(account["name"])} if account["enabled"] is None else account
            for account in item["accounts"]
        ]
        # In the order of the file, and True is what an account starts with.
        place = {account["name"]: number for number, account in enumerate(accounts)}
        was = sorted(before["accounts"], key=lambda account: place.get(account["name"], len(place)))
        found = super().differences({**item, "accounts": accounts}, {**before, "accounts": was})
        changed = pool_accounts.changed_credentials(item["name"], item["accounts"])
        if changed:
            found["credentials"] = ("…", f"changed for {', '.join(changed)}")
        return found

    def save(self, item: Item, before: Item | None) -> None:
        row = Pool.objects.filter(name=item["name"]).first() or Pool(name=item["name"])
        row.provider = Provider.objects.get(name=item["provider"])
        for name in (
            "strategy", "pause_at", "pause", "fallback", "projects", "tries", "repeat_unsafe",
            "show_provider_limits",
        ):  # fmt: skip
            setattr(row, name, item[name])
        row.sticky = bool(item["sticky"])
        row.sticky_by = StickyBy.PREFIX if item["sticky"] == "prefix" else StickyBy.KEY
        for name in ("initial", "floor", "ceiling"):
            setattr(row, f"concurrency_{name}", item["concurrency"][name] if item["concurrency"] else None)
        for group in ("breaker", "cooldown"):
            for name, value in item[group].items():
                setattr(row, f"{group}_{name}", value)
        row.save()
        _save_limits(row, item["limits"])
        pool_accounts.save(row, item["accounts"], pool_accounts.changed_credentials(item["name"], item["accounts"]))

    def row(self, item: Item) -> Pool | None:
        return Pool.objects.filter(name=item["name"]).first()


def _pool_item(row: Pool) -> Item:
    concurrency = None
    if row.concurrency_initial is not None:
        concurrency = {name: getattr(row, f"concurrency_{name}") for name in ("initial", "floor", "ceiling")}
    return {
        "name": row.name,
        "provider": row.provider.name,
        "strategy": row.strategy,
        "limits": [
            {member.name: getattr(limit, member.name) for member in _LIMIT.members}
            for limit in sorted(row.limits.all(), key=lambda limit: limit.pk)
        ],
        "concurrency": concurrency,
        "breaker": {member.name: getattr(row, f"breaker_{member.name}") for member in _BREAKER.members},
        "cooldown": {member.name: getattr(row, f"cooldown_{member.name}") for member in _COOLDOWN.members},
        "pause_at": row.pause_at,
        "pause": row.pause,
        "fallback": list(row.fallback),
        "sticky": "prefix" if row.sticky and row.sticky_by == StickyBy.PREFIX else row.sticky,
        "projects": None if row.projects is None else list(row.projects),
        "tries": row.tries,
        "repeat_unsafe": row.repeat_unsafe,
        "show_provider_limits": row.show_provider_limits,
        "accounts": pool_accounts.items(row),
    }


def _save_limits(pool: Pool, wanted: list[Item]) -> None:
    """Rows of the same definition keep their counters. New rows are created in the order of the file."""
    rows: dict[tuple[Any, ...], PoolLimit] = {}
    for limit in pool.limits.all():
        rows[_limit_key({member.name: getattr(limit, member.name) for member in _LIMIT.members})] = limit
    for item in wanted:
        key = _limit_key(item)
        row = rows.pop(key) if key in rows else PoolLimit(pool=pool)
        for name, value in item.items():
            setattr(row, name, value)
        row.save()
    for limit in rows.values():
        limit.delete()
