"""Section `alerts`: which alerts are sent to which address. An address is a secret: it is stored encrypted and never shown."""

from __future__ import annotations

from typing import Any

from controlplane import environment
from controlplane.alerts import channels, conditions
from controlplane.alerts.kinds import KINDS
from controlplane.config import readers
from controlplane.config.document import Node
from controlplane.config.kinds.base import Kind
from controlplane.config.records import Item, Member, Record
from controlplane.models import AlertRule
from quotas.models.encrypted import CredentialUnreadable


def _address(node: Node) -> str:
    value = readers.text(2000)(node)
    if wrong := channels.problem(value):
        raise node.wrong(wrong)
    return value


def _condition(node: Node) -> str:
    try:
        return str(conditions.parse(readers.text(200)(node)))
    except conditions.BadCondition as error:
        raise node.wrong(str(error)) from None


def _check(node: Node, item: Item) -> None:
    if item["to"] is not None and item["to_env"] is not None:
        raise node.data["to_env"].wrong("is given beside `to`: one of them is enough")
    if not item["when"] and not item["conditions"]:
        raise node.wrong("needs `when` with a kind of alert, or `conditions`")


class Alerts(Kind):
    """A rule without an address keeps the stored one, so that what `export` writes can be applied."""

    section, word = "alerts", "alert rule"
    record = Record(
        (
            Member("name", readers.name),
            Member("when", readers.listed(readers.choice(KINDS)), list),
            Member("conditions", readers.listed(_condition, most=20), list),
            Member("to", readers.nullable(_address), None),
            Member("to_env", readers.nullable(readers.environment_name), None),
        ),
        _check,
    )

    def problem(self, item: Item, before: Item | None) -> tuple[str, str] | None:
        given = _given(item)
        if given is not None and item["to"] is None and (wrong := channels.problem(given)):
            return "to_env", f"{item['to_env']} {wrong}"
        if before is not None or given is not None:
            return None
        if item["to_env"] is not None:
            return "to_env", f"the new rule {item['name']!r} needs an address: {item['to_env']} is not set"
        return "name", f"the new rule {item['name']!r} needs an address: `to` or `to_env`"

    def stored(self) -> dict[str, Item]:
        return {
            row.name: {
                "name": row.name,
                "when": list(row.when),
                "conditions": list(row.conditions),
                "to": None,
                "to_env": row.to_env or None,
            }
            for row in AlertRule.objects.defer("to")
        }

    def same(self, item: Item, before: Item) -> bool:
        return not self.differences(item, before)

    def shown(self, item: Item) -> Item:
        return super().shown({**item, "to": None})

    def differences(self, item: Item, before: Item) -> dict[str, tuple[Any, Any]]:
        found = super().differences({**item, "to": None}, before)
        given = _given(item)
        if given is not None and not _is_stored(item["name"], given):
            found["to"] = ("…", "changed")
        return found

    def save(self, item: Item, before: Item | None) -> None:
        row = AlertRule.objects.filter(name=item["name"]).first() or AlertRule(name=item["name"])
        row.when, row.conditions, row.to_env = item["when"], item["conditions"], item["to_env"] or ""
        given = _given(item)
        if given is not None:
            row.to = given
        row.save()

    def row(self, item: Item) -> AlertRule | None:
        return AlertRule.objects.filter(name=item["name"]).first()


def _given(item: Item) -> str | None:
    """The address from the file or the environment; None: the stored one stays."""
    if item["to"] is not None:
        return str(item["to"])
    return environment.secret(item["to_env"])


def _is_stored(name: str, address: str) -> bool:
    row = AlertRule.objects.get(name=name)
    try:
        return bool(row.to.reveal() == address)
    except CredentialUnreadable:
        return False
