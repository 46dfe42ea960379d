"""Limits of policies and pools: which members belong to which algorithm."""

from __future__ import annotations

from controlplane.config.document import Node
from controlplane.config.records import Item
from quotas.models.policy import COUNTED

WINDOWED = frozenset({"sliding_window", "sliding_window_counter", "token_bucket", "fixed_window"})


def check(node: Node, item: Item) -> None:
    """Raises a `Mistake` if the members don't fit together."""
    algorithm = item["algorithm"]

    def at(member: str) -> Node:
        found: Node = node.data.get(member, node)
        return found

    if algorithm in WINDOWED and item["window"] is None:
        raise node.wrong(f"{algorithm} needs a window")
    if algorithm not in WINDOWED and item["window"] is not None:
        raise at("window").wrong(f"{algorithm} has no window")
    if algorithm == "calendar" and not item["period"]:
        raise node.wrong("calendar needs a period: day, week or month")
    if algorithm != "calendar" and item["period"]:
        raise at("period").wrong(f"{algorithm} has no period")
    if algorithm != "calendar" and item["timezone"] != "UTC":
        raise at("timezone").wrong(f"{algorithm} has no time zone")
    if algorithm != "token_bucket" and item["burst"] is not None:
        raise at("burst").wrong(f"{algorithm} has no burst")


def starts_anew(item: Item, before: Item) -> bool:
    """Whether the new definition counts something else or in another time, so that counters start anew."""
    return any(item[name] != before[name] for name in COUNTED if name in item)
