"""The limits of one key, and their counters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

from controlplane.simulator.bucket import Bucket, Counter, SteppingWindow

_KEY_OPTION = re.compile(r"(?P<key>.+?)(?::(?P<limits>[a-z_]+=[^,=]*(?:,[a-z_]+=[^,=]*)*))?")


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of one key, per minute; None does not limit, 0 refuses everything."""

    rpm: float | None = None
    tpm: float | None = None
    burst: float | None = None
    """Capacity of the bucket of requests; None means `rpm`."""
    concurrency: int | None = None
    tpm_burst: float | None = None
    """Capacity of the bucket of tokens; None means `tpm`."""

    @classmethod
    def parse(cls, text: str, defaults: KeyLimits) -> tuple[str, KeyLimits]:
        """Read `K:rpm=600,tpm=90000,burst=60`; what is not given is as in `defaults`. ValueError says what is wrong.

        The key itself may contain colons, as a bot's token does.
        """
        match = _KEY_OPTION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not KEY or KEY:rpm=..,tpm=..,burst=..")
        given: dict[str, float] = {}
        for part in (match["limits"] or "").split(","):
            if not part:
                continue
            name, _, value = part.partition("=")
            if name not in ("rpm", "tpm", "burst", "concurrency", "tpm_burst"):
                raise ValueError(f"{text!r}: unknown limit {name!r} (rpm, tpm, burst, concurrency, tpm_burst)")
            if name in given:
                raise ValueError(f"{text!r}: {name} is given twice")
            try:
                given[name] = amount(value)
            except ValueError as error:
                raise ValueError(f"{text!r}: {name}: {error}") from None
        if "rpm" in given and "burst" not in given:
            defaults = replace(defaults, burst=None)
        if "tpm" in given and "tpm_burst" not in given:
            defaults = replace(defaults, tpm_burst=None)
        return match["key"], replace(defaults, **given)  # type: ignore[arg-type]


def amount(text: str) -> float:
    """A finite number from 0, written in ASCII digits."""
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
        raise ValueError(f"{text!r} is not a number from 0")
    value = float(text)
    return int(value) if value.is_integer() else value


@dataclass(slots=True)
class Refusal:
    """A call that a limit refused: the unit, and the wait."""

    unit: str
    limit: float
    used: float
    asked: float
    wait: float


@dataclass(slots=True)
class KeyUse:
    """Live counters of one key."""

    counters: dict[str, Counter]
    concurrency: int | None = None
    in_flight: int = 0
    requests: int = 0
    refused: int = 0
    succeeded: int = 0
    tokens: int = 0
    chats: dict[str, Counter] = field(default_factory=dict)

    @classmethod
    def start(cls, limits: KeyLimits, now: float, *, stepping: bool = False) -> KeyUse:
        """Full buckets (or fresh windows) for `limits`."""
        counters: dict[str, Counter] = {}
        for unit, limit, capacity in (
            ("requests", limits.rpm, limits.burst),
            ("tokens", limits.tpm, limits.tpm_burst),
        ):
            if limit is not None:
                kind = SteppingWindow if stepping else Bucket
                counters[unit] = kind(limit, 60.0, capacity, now)
        return cls(counters, None if limits.concurrency is None else int(limits.concurrency))

    def admit(self, costs: dict[str, int], now: float, extra: dict[str, Counter] | None = None) -> Refusal | None:
        """Charge `costs` against every counter, or nothing at all. `extra` counters take one request each."""
        if self.concurrency is not None and self.in_flight >= self.concurrency:
            return Refusal("concurrency", self.concurrency, self.in_flight, 1, 1.0)
        charges = [(unit, counter, costs.get(unit, 0)) for unit, counter in self.counters.items()]
        charges += [(name, counter, 1) for name, counter in (extra or {}).items()]
        worst: Refusal | None = None
        for unit, counter, cost in charges:
            wait = counter.wait_for(cost, now)
            if wait and (worst is None or wait > worst.wait):
                worst = Refusal(unit, counter.limit, counter.capacity - counter.remaining(now), cost, wait)
        if worst is not None:
            return worst
        for _, counter, cost in charges:
            counter.take(cost)
        return None

    def reconcile(self, unit: str, charged: int, actual: int) -> None:
        """Return or additionally charge the difference to the actual use."""
        if unit in self.counters and math.isfinite(actual):
            self.counters[unit].take(actual - charged)
