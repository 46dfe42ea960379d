"""The periods that charts can show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Period:
    """A span of time up to now, in steps of equal length."""

    name: str
    span: timedelta
    step: timedelta

    @property
    def resolution(self) -> str:
        """The resolution of the roll-ups that the chart reads: minutes are kept for two days only."""
        return "minute" if self.step < timedelta(hours=1) else "hour"

    def begin(self, now: datetime) -> datetime:
        """Start of the first step; the last one contains `now`."""
        length = int(self.step.total_seconds())
        last = datetime.fromtimestamp(int(now.timestamp()) // length * length, UTC)
        return last - self.span + self.step

    def steps(self, now: datetime) -> Iterator[datetime]:
        begin = self.begin(now)
        return (begin + self.step * number for number in range(self.span // self.step))

    def position(self, moment: datetime, now: datetime) -> int:
        """The number of the step that contains `moment`; negative before the first one."""
        return int((moment - self.begin(now)) // self.step)


PERIODS = {
    one.name: one
    for one in (
        Period("1h", timedelta(hours=1), timedelta(minutes=1)),
        Period("6h", timedelta(hours=6), timedelta(minutes=5)),
        Period("24h", timedelta(hours=24), timedelta(hours=1)),
        Period("7d", timedelta(days=7), timedelta(hours=4)),
    )
}
DEFAULT = "1h"


def period_of(name: str | None) -> Period:
    """The period of that name; for an unknown name one hour."""
    return PERIODS.get(name or DEFAULT, PERIODS[DEFAULT])
