"""Reads job specifications from untrusted JSON, field by field; each error has a JSON pointer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from queues.errors import FieldError, InvalidJob
from queues.payloads import mistake_in
from quotas.engine.costs import COUNT_RULE, is_count, is_unit
from quotas.engine.priorities import PRIORITIES
from quotas.rest.fingerprints import fingerprint
from quotas.rest.pointers import escape

FIELDS = frozenset(
    {
        "type", "queue", "priority", "payload", "project", "user", "run_at", "delay", "cost", "max_attempts", "timeout",
        "batch", "callback_url", "keys", "delivery", "after", "unique_for", "unique_key", "idempotency_key",
    }
)  # fmt: skip
MAX_TEXT = 1024
MAX_DELAY = 366 * 86400.0
MAX_TIMEOUT = 86400.0


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job's request, checked for form; names are not looked up yet. Durations in seconds."""

    type: str
    queue: str | None = None
    priority: int = 5
    payload: Mapping[str, Any] = field(default_factory=dict)
    project: str | None = None
    user: str = ""
    run_at: datetime | None = None
    delay: float = 0.0
    cost: Mapping[str, int] | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    batch: str | None = None
    callback_url: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    delivery: str = "at_least_once"
    after: tuple[str, ...] = ()
    unique_for: float | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    held: str = ""
    """Why it waits until somebody releases it, though it names no other jobs: set by us, never by a caller."""
    digest: str = ""
    """Hash of the body, to recognise a repeated request under the same idempotency key."""


class _Reader:
    """Collects what is wrong while reading one object."""

    def __init__(self, data: Mapping[str, Any], pointer: str) -> None:
        self.data = data
        self.pointer = pointer
        self.errors: list[FieldError] = []

    def wrong(self, name: str, detail: str) -> None:
        self.errors.append(FieldError(f"{self.pointer}/{name}", detail))

    def text(self, name: str, *, longest: int = MAX_TEXT, required: bool = False) -> str | None:
        value = self.data.get(name)
        if value is None:
            if required:
                self.wrong(name, "This field is required.")
            return None
        if not isinstance(value, str):
            self.wrong(name, "Must be a string.")
        elif len(value) > longest:
            self.wrong(name, f"Must have at most {longest:,} characters.")
        elif "\x00" in value:
            self.wrong(name, "Must not contain a NUL character.")
        elif required and not value:
            self.wrong(name, "Must not be empty.")
        else:
            try:
                value.encode()
            except UnicodeEncodeError:
                self.wrong(name, "Must be valid Unicode.")
                return None
            return value
        return None

    def number(self, name: str, low: float, high: float, *, above: bool = False) -> float | None:
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(name, "Must be a number.")
        elif not low <= value <= high or (above and value == low):  # compared before any conversion: ints have no end
            self.wrong(
                name, f"Must be {'more than' if above else 'from'} {low:g} {'and at most' if above else 'to'} {high:g}."
            )
        else:
            return float(value)
        return None

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(name, "Must be a whole number.")
        elif not low <= value <= high:
            self.wrong(name, f"Must be from {low} to {high}.")
        else:
            return value
        return None


def read_cost(value: Any, pointer: str, errors: list[FieldError]) -> dict[str, int] | None:
    """Units of a cost: a number means requests; whole numbers from 0 to 2^53 - 1."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        value, named = {"requests": value}, False
    else:
        named = True
    cost: dict[str, int] = {}
    for unit, amount in value.items():
        if not is_unit(unit):
            errors.append(FieldError(pointer, "A unit's name has 1 to 32 printable characters."))
        elif not is_count(amount):
            errors.append(FieldError(f"{pointer}/{escape(unit)}" if named else pointer, f"Must be {COUNT_RULE}."))
        else:
            cost[unit] = amount
    return cost


def read_priority(value: Any, reader: _Reader) -> int:
    if value is None:
        return PRIORITIES["normal"]
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 9:
        return value
    reader.wrong("priority", "Must be `high`, `normal`, `low` or a whole number from 0 (first) to 9.")
    return PRIORITIES["normal"]


def _read_keys(reader: _Reader) -> dict[str, str]:
    value = reader.data.get("keys")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        reader.wrong("keys", "Must be an object of strings.")
        return {}
    keys = {}
    for name, subject in value.items():
        if not _is_key_text(name) or not name:
            reader.wrong("keys", f"A key's name has 1 to {MAX_TEXT:,} characters.")
        elif not _is_key_text(subject):
            reader.wrong(f"keys/{escape(name)}", f"Must be a string of at most {MAX_TEXT:,} characters.")
        else:
            keys[name] = subject
    return keys


def _is_key_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and mistake_in(value, "") is None


def _read_run_at(reader: _Reader) -> datetime | None:
    value = reader.data.get("run_at")
    if value is None:
        return None
    try:
        moment = parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        reader.wrong("run_at", "Must be a time such as 2030-01-31T12:00:00Z.")
    elif moment.tzinfo is None:
        reader.wrong("run_at", "Must name its time zone, such as a Z at the end.")
    else:
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            reader.wrong("run_at", "Must be in the years 1 to 9999.")
    return None


def _read_after(reader: _Reader) -> tuple[str, ...]:
    value = reader.data.get("after")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 1000 or not all(isinstance(uid, str) for uid in value):
        reader.wrong("after", "Must be a list of at most 1,000 job ids.")
        return ()
    return tuple(dict.fromkeys(value))


def _read_batch(reader: _Reader) -> str | None:
    value = reader.data.get("batch")
    if isinstance(value, Mapping):
        unknown = set(value) - {"id"}
        uid = value.get("id")
        if unknown or not isinstance(uid, str):
            reader.wrong("batch", 'Must be a batch\'s id, or {"id": ..}.')
            return None
        return uid
    return reader.text("batch", longest=64)


def _read_delivery(reader: _Reader) -> str:
    delivery = reader.data.get("delivery")
    if delivery is None:
        return "at_least_once"
    if delivery not in ("at_least_once", "at_most_once"):
        reader.wrong("delivery", "Must be `at_least_once` or `at_most_once`.")
    return str(delivery)


def read_job(data: Any, pointer: str = "") -> JobSpec:
    """Read one job from JSON. Raises `InvalidJob` with all that is wrong; `pointer` is where `data` stands."""
    if not isinstance(data, Mapping):
        raise InvalidJob([FieldError(pointer, "Must be an object.")])
    reader = _Reader(data, pointer)
    for name in data:
        if name not in FIELDS:
            reader.wrong(escape(name), "Unknown field.")
    payload = data.get("payload", {})
    if not isinstance(payload, Mapping):
        reader.wrong("payload", "Must be an object.")
        payload = {}
    elif (mistake := mistake_in(dict(payload), f"{pointer}/payload")) is not None:
        reader.errors.append(mistake)
    delivery = _read_delivery(reader)
    if data.get("run_at") is not None and data.get("delay"):
        reader.wrong("delay", "Give either `run_at` or `delay`.")
    if data.get("unique_key") is not None and data.get("unique_for") is None:
        reader.wrong("unique_key", "Has a meaning only with `unique_for`.")
    spec = JobSpec(
        type=reader.text("type", longest=200, required=True) or "",
        queue=reader.text("queue", longest=63),
        priority=read_priority(data.get("priority"), reader),
        payload=payload,
        project=reader.text("project", longest=63),
        user=reader.text("user") or "",
        run_at=_read_run_at(reader),
        delay=reader.number("delay", 0, MAX_DELAY) or 0.0,
        cost=read_cost(data.get("cost"), f"{pointer}/cost", reader.errors),
        max_attempts=reader.whole("max_attempts", 1, 1000),
        timeout=reader.number("timeout", 0, MAX_TIMEOUT, above=True),
        batch=_read_batch(reader),
        callback_url=reader.text("callback_url", longest=1000) or "",
        keys=_read_keys(reader),
        delivery=delivery,
        after=_read_after(reader),
        unique_for=reader.number("unique_for", 0, MAX_DELAY, above=True),
        unique_key=reader.text("unique_key", longest=255),
        idempotency_key=reader.text(
            "idempotency_key", longest=255, required="idempotency_key" in data and data["idempotency_key"] is not None
        ),
        digest=""
        if reader.errors
        else fingerprint({name: value for name, value in data.items() if name != "idempotency_key"}),
    )
    if reader.errors:
        raise InvalidJob(reader.errors)
    return spec
