"""Section `providers`: addresses, dialects, and how a credential is sent."""

from __future__ import annotations

from controlplane.config import readers
from controlplane.config.document import Node
from controlplane.config.kinds.base import Kind
from controlplane.config.records import Item, Member, Mistakes, Record, duration
from quotas.engine.dialects import settings
from quotas.engine.estimate import DEFAULT_OUTPUT
from quotas.models import Provider
from quotas.models.provider import DIALECTS

DEFAULT_HEADER = "Authorization: Bearer {credential}"


def _settings(node: Node, item: Item) -> None:
    """Every member of a provider's settings is checked, at every level."""
    given = node.data.get("settings")
    mistakes = []
    for misfit in settings.misfits(item["dialect"], item["settings"]):
        place = given
        for step in misfit.path:
            place = place.data[step]
        mistakes.append(place.unknown(misfit.path[-1], misfit.known) if misfit.known else place.wrong(misfit.detail))
    if mistakes:
        raise Mistakes(mistakes)


class Providers(Kind):
    section, word = "providers", "provider"
    record = Record(
        (
            Member("name", readers.name),
            Member("dialect", readers.choice(DIALECTS), "generic"),
            Member("base_url", readers.address),
            Member("auth_header", readers.header, DEFAULT_HEADER),
            duration("timeout", readers.seconds(0.1, 3600.0), 30.0),
            Member("default_output_tokens", readers.whole(0, 10_000_000), DEFAULT_OUTPUT),
            Member("settings", readers.mapping, dict),
        ),
        _settings,
    )

    def stored(self) -> dict[str, Item]:
        return {
            row.name: {member.name: getattr(row, member.name) for member in self.record.members}
            for row in Provider.objects.all()
        }

    def save(self, item: Item, before: Item | None) -> None:
        row = Provider.objects.filter(name=item["name"]).first() or Provider()
        for name, value in item.items():
            setattr(row, name, value)
        row.save()

    def row(self, item: Item) -> Provider | None:
        return Provider.objects.filter(name=item["name"]).first()
