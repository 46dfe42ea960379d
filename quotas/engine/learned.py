"""Quotas that providers state in their answers: as one answer states them, and as an account has them now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["bucket", "window"]
"""Whether what was used comes back steadily, or all of it when the window ends."""


@dataclass(frozen=True, slots=True)
class LearnedQuota:
    """The quota of one unit as an answer states it; None is not known."""

    limit: int | None = None
    remaining: int | None = None
    reset_after: float | None = None
    """Seconds until the window ends, or the bucket is full."""
    window: float | None = None
    """Seconds."""
    kind: Kind = "window"

    @property
    def used_share(self) -> float | None:
        """From 0 to 1; None where limit or remainder is not known."""
        if not self.limit or self.remaining is None:
            return None
        return 1 - min(self.remaining, self.limit) / self.limit


@dataclass(frozen=True, slots=True)
class AccountQuota:
    """The quota of one unit of an account now; None is not known."""

    limit: int | None = None
    remaining: int | None = None
    reset_after: float | None = None
    window: float | None = None
    kind: Kind | None = None
    capacity: int | None = None
    """The most that was free at once, of a bucket."""
    models: Mapping[str, AccountQuota] = field(default_factory=dict)
    """The same unit's quotas of single models or resources."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> AccountQuota:
        """From the JSON object of account_states.lua."""
        models = {name: cls.of(model) for name, model in (row.get("models") or {}).items()}
        return cls(**{**row, "models": models})

    @property
    def is_of_account(self) -> bool:
        """Whether anything is known of the account itself, and not only of its models."""
        return any(value is not None for name, value in self.document().items() if name != "models")

    def document(self) -> dict[str, Any]:
        """What is known, as a JSON object."""
        known = {name: getattr(self, name) for name in _MEMBERS if getattr(self, name) is not None}
        models = {name: model.document() for name, model in self.models.items()}
        return {**known, "models": models} if models else known


_MEMBERS = ("limit", "remaining", "reset_after", "window", "kind", "capacity")
