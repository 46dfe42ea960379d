"""The table of transitions, filled by the functions that make them. The page docs/state-machine.md shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from queues.states import Stage, Status

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """One transition: the stages it starts from (none: a new job), where it leads, who calls it, what follows."""

    name: str
    sources: tuple[Stage, ...]
    targets: Mapping[Stage, tuple[Status, ...]]
    callers: str
    effects: tuple[str, ...]

    def rows(self) -> list[str]:
        """Its rows in the table of the page, one for each target."""
        start = ", ".join(f"`{stage.name.lower()}`" for stage in self.sources) or "new"
        return [
            f"| `{self.name}` | {start} → `{target.name.lower()}` | "
            f"{', '.join(f'`{status.value}`' for status in statuses) or 'unchanged'} | {self.callers} | "
            f"{', '.join(self.effects) or 'none'} |"
            for target, statuses in self.targets.items()
        ]


TRANSITIONS: dict[str, TransitionRule] = {}


def transition(
    name: str,
    sources: Sequence[Stage],
    targets: Mapping[Stage, tuple[Status, ...]],
    *,
    callers: str,
    effects: Sequence[str] = (),
) -> Callable[[F], F]:
    """Register the decorated function as the one that makes this transition."""

    def register(function: F) -> F:
        if name in TRANSITIONS:
            raise ValueError(f"The transition {name} is registered twice.")
        TRANSITIONS[name] = TransitionRule(name, tuple(sources), targets, callers, tuple(effects))
        return function

    return register
