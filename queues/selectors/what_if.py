"""Changes of configuration to try in a forecast, without making them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """`accounts`: how many more (or fewer) a pool has; `limits`: by policy; `pause_at`: by pool, None never pauses."""

    accounts: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int | None] = field(default_factory=dict)
    pause_at: Mapping[str, float | None] = field(default_factory=dict)

    def each(self) -> Iterator[Change]:
        """Every change alone and then, where they are several, all of them together."""
        found = [Change(accounts={name: count}) for name, count in self.accounts.items()]
        found += [Change(limits={name: limit}) for name, limit in self.limits.items()]
        found += [Change(pause_at={name: share}) for name, share in self.pause_at.items()]
        yield from found
        if len(found) > 1:
            yield self

    def document(self) -> dict[str, Any]:
        """As a request has it."""
        members = {"accounts": self.accounts, "limits": self.limits, "pause_at": self.pause_at}
        return {name: dict(values) for name, values in members.items() if values}


NO_CHANGE = Change()
