"""Readers of single values: each takes a node and returns a plain value, or raises a `Mistake`."""

from __future__ import annotations

import ipaddress
import math
import re
import zoneinfo
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from controlplane.config.document import Node, Reader, T
from quotas import durations
from quotas.engine.costs import MAX_COST, is_unit
from quotas.models.names import name_validator
from quotas.snapshot.patterns import BadPattern, compile_pattern
from quotas.suggestions import did_you_mean
from quotas.times import rfc3339

YEAR = 366 * 86400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # as name_validator has it
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def text(longest: int, *, blank: bool = False) -> Reader[str]:
    def read(node: Node) -> str:
        if not isinstance(node.data, str):
            raise node.wrong("must be text" + (", so put it in quotes" if isinstance(node.data, int | float) else ""))
        if not node.data and not blank:
            raise node.wrong("must not be blank")
        if len(node.data) > longest:
            raise node.wrong(f"has more than {longest} characters")
        return node.data

    return read


def name(node: Node) -> str:
    value = text(63)(node)
    if not _NAME.fullmatch(value):
        raise node.wrong(str(name_validator.message))
    return value


def unit(node: Node) -> str:
    value = name(node)
    if len(value) > 32:
        raise node.wrong("has more than 32 characters")
    return value


def choice(words: Iterable[str]) -> Reader[str]:
    known = tuple(words)

    def read(node: Node) -> str:
        if node.data not in known or not isinstance(node.data, str):
            raise node.wrong(f"must be one of {', '.join(known)}, not {_shown(node)}{did_you_mean(node.data, known)}")
        return node.data

    return read


def whole(least: int = 0, most: int = MAX_COST) -> Reader[int]:
    def read(node: Node) -> int:
        if isinstance(node.data, bool) or not isinstance(node.data, int):
            raise node.wrong(f"must be a whole number, not {_shown(node)}")
        if not least <= node.data <= most:
            raise node.wrong(f"must be from {least} to {most}, not {_shown(node)}")
        return node.data

    return read


def seconds(least: float = 0.0, most: float = YEAR) -> Reader[float]:
    def read(node: Node) -> float:
        try:
            value = durations.parse(node.data)
        except (durations.BadDuration, OverflowError):
            raise node.wrong(f"must be {durations.HELP}, not {_shown(node)}") from None
        if not least <= value <= most:
            raise node.wrong(f"must be from {durations.render(least)} to {durations.render(most)}, not {_shown(node)}")
        return value

    return read


def share(node: Node) -> float:
    if isinstance(node.data, bool) or not isinstance(node.data, int | float) or not math.isfinite(node.data):
        raise node.wrong(f"must be a share from 0 to 1, not {_shown(node)}")
    if not 0 <= node.data <= 1:
        raise node.wrong(f"must be a share from 0 to 1, not {_shown(node)}")
    return float(node.data)


def positive_share(node: Node) -> float:
    if (value := share(node)) == 0:
        raise node.wrong("must be above 0")
    return value


def flag(node: Node) -> bool:
    if not isinstance(node.data, bool):
        raise node.wrong(f"must be true or false, not {_shown(node)}")
    return node.data


def nullable(inner: Reader[T]) -> Reader[T | None]:
    def read(node: Node) -> T | None:
        return None if node.data is None else inner(node)

    return read


def listed(inner: Reader[T], *, most: int = 100_000, distinct: bool = True) -> Reader[list[T]]:
    def read(node: Node) -> list[T]:
        if not isinstance(node.data, list):
            raise node.wrong(f"must be a list, not {_shown(node)}")
        if len(node.data) > most:
            raise node.wrong(f"has more than {most} entries")
        values: list[T] = []
        seen = set()
        for item in node.data:
            value = inner(item)
            if distinct and value in seen:
                raise item.wrong(f"{value!r} stands there twice")
            seen.add(value)
            values.append(value)
        return values

    return read


def pattern(node: Node) -> str:
    value = text(500, blank=True)(node)
    try:
        compile_pattern(value)
    except BadPattern as error:
        raise node.wrong(str(error)) from None
    return value


def timezone(node: Node) -> str:
    value = text(64)(node)
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise node.wrong(
            f"there is no time zone {value!r}; names are those of the IANA, such as Europe/Berlin"
        ) from None
    return value


def moment(node: Node) -> str:
    """A time with its zone; returns it in UTC, with `Z`."""
    try:
        value = datetime.fromisoformat(text(64)(node))
    except ValueError:
        raise node.wrong(f"must be a time such as 2026-12-31T00:00:00Z, not {_shown(node)}") from None
    if value.tzinfo is None:
        raise node.wrong("must name its time zone, as in 2026-12-31T00:00:00Z")
    try:
        return rfc3339(value)
    except OverflowError:
        raise node.wrong("is too far away") from None


def cidr(node: Node) -> str:
    value = text(64)(node)
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise node.wrong(f"is no network: {error}") from None


def cost(node: Node) -> dict[str, int]:
    if not isinstance(node.data, dict) or not node.data:
        raise node.wrong("must be units with their numbers, such as {requests: 5}")
    for unit, count in node.data.items():
        if not _NAME.fullmatch(unit) or not is_unit(unit):
            raise count.wrong("is no name of a unit")
    return {unit: whole()(count) for unit, count in node.data.items()}


def address(node: Node) -> str:
    value = text(500)(node)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise node.wrong("must be an address such as https://api.example.com") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise node.wrong("must be an address such as https://api.example.com, without query and fragment")
    if parts.username or parts.password:
        raise node.wrong("must not contain a credential; those belong to accounts")
    return value


def header(node: Node) -> str:
    value = text(200, blank=True)(node)
    if value and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x20-\x7e]*", value):
        raise node.wrong("must be a header field such as `Authorization: Bearer {credential}`, or blank")
    if value and "{credential}" not in value:
        raise node.wrong("must contain {credential}, which is replaced when the call is made")
    return value


def environment_name(node: Node) -> str:
    value = text(128)(node)
    if not _ENV.fullmatch(value):
        raise node.wrong("must be the name of an environment variable; the credential itself never stands here")
    return value


def mapping(node: Node) -> dict[str, Any]:
    if not isinstance(node.data, dict):
        raise node.wrong(f"must be a mapping, not {_shown(node)}")
    return {name: member.plain() for name, member in node.data.items()}


def _shown(node: Node) -> str:
    if isinstance(node.data, dict):
        return "a mapping"
    if isinstance(node.data, list):
        return "a list"
    if node.data is None:
        return "nothing"
    shown = repr(node.data)
    return shown if len(shown) <= 60 else shown[:60] + "…"
