"""What `settings` of a provider may contain, to the last member: the form of what `generic.read` looks up.

A name that is slightly wrong would be ignored when answers are read, so it is refused where it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from quotas.engine.categories import LIMITS, OF_CALLS
from quotas.engine.costs import is_unit
from quotas.engine.dialects import wait_values
from quotas.engine.dialects.findings import Scope

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Misfit:
    """One thing that is wrong. `path` leads to it through members and places in lists; `known`: the names that the
    last step of the path could be, where that is what is wrong."""

    path: Path
    detail: str
    known: tuple[str, ...] = ()


Form = Callable[[Any, Path], Iterator[Misfit]]


def misfits(dialect: str, settings: Any) -> list[Misfit]:
    """All that is wrong with a provider's settings."""
    if not isinstance(settings, Mapping):
        return [Misfit((), "must be a mapping")]
    if settings and dialect != "generic":
        return [Misfit((), f"are read for the dialect generic only, not for {dialect}")]
    return list(_SETTINGS(settings, ()))


def _text(what: str) -> Form:
    def fits(value: Any, path: Path) -> Iterator[Misfit]:
        if not isinstance(value, str) or not value or len(value) > 500:
            yield Misfit(path, f"must be {what}")

    return fits


def _one_of(words: tuple[str, ...]) -> Form:
    def fits(value: Any, path: Path) -> Iterator[Misfit]:
        if value not in words or not isinstance(value, str):
            yield Misfit(path, f"must be one of {', '.join(words)}")

    return fits


def _whole(least: int, most: int, what: str) -> Form:
    def fits(value: Any, path: Path) -> Iterator[Misfit]:
        if type(value) is not int or not least <= value <= most:
            yield Misfit(path, f"must be {what}")

    return fits


def _seconds(value: Any, path: Path) -> Iterator[Misfit]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 366 * 86400:
        yield Misfit(path, "must be a number of seconds above 0")


def _code(value: Any, path: Path) -> Iterator[Misfit]:
    if isinstance(value, bool) or not isinstance(value, str | int):
        yield Misfit(path, "must be a text or a whole number")


def _one_or_many(inner: Form) -> Form:
    def fits(value: Any, path: Path) -> Iterator[Misfit]:
        if isinstance(value, list | tuple):
            yield from _listed(inner)(value, path)
        else:
            yield from inner(value, path)

    return fits


def _listed(inner: Form) -> Form:
    def fits(value: Any, path: Path) -> Iterator[Misfit]:
        if not isinstance(value, list | tuple):
            yield Misfit(path, "must be a list")
            return
        for position, item in enumerate(value):
            yield from inner(item, (*path, position))

    return fits


def _members(known: Mapping[str, Form]) -> Form:
    def fits(value: Any, path: Path) -> Iterator[Misfit]:
        if not isinstance(value, Mapping):
            yield Misfit(path, f"must be a mapping with {', '.join(known)}")
            return
        for name, item in value.items():
            if name in known:
                yield from known[name](item, (*path, name))
            else:
                detail = f"is not known here; known are {', '.join(sorted(known))}"
                yield Misfit((*path, str(name)), detail, tuple(known))

    return fits


def _by_unit(inner: Form) -> Form:
    def fits(value: Any, path: Path) -> Iterator[Misfit]:
        if not isinstance(value, Mapping):
            yield Misfit(path, "must be a mapping of units")
            return
        for unit, item in value.items():
            if not is_unit(unit):
                yield Misfit((*path, str(unit)), "is no name of a unit")
            else:
                yield from inner(item, (*path, unit))

    return fits


_FIELD = _text("the name of a header field")
_PLACE = _text("a dotted path in the body")
_ENCODING = _one_of(wait_values.ENCODINGS)
_STATUSES = _one_or_many(_whole(100, 599, "an HTTP status"))
FORMS: Mapping[str, Form] = {
    "limits": _by_unit(
        _members(
            {
                "limit": _FIELD,
                "remaining": _FIELD,
                "used": _FIELD,
                "reset": _FIELD,
                "encoding": _ENCODING,
                "window": _seconds,
                "kind": _one_of(("bucket", "window")),
            }
        )
    ),
    "retry_after": _one_or_many(_FIELD),
    "retry_after_encoding": _ENCODING,
    "retry_after_body": _PLACE,
    **dict.fromkeys(LIMITS, _STATUSES),
    "codes": _members(dict.fromkeys(OF_CALLS, _listed(_code))),
    "code_path": _PLACE,
    "usage": _by_unit(_PLACE),
    "scope": _one_of(get_args(Scope)),
}
"""Every setting that `generic.read` looks up."""
_SETTINGS = _members(FORMS)
