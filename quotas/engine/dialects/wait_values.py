"""From a number or a date to a wait in seconds from now: positive and bounded, or None.

Absolute times count from the answer's own `Date`, so that neither side's wrong clock matters; what is kept is only
the difference, which the engine adds to its own clock.
"""

from __future__ import annotations

import re

from quotas.engine.dialects import dates, numbers

MAX_WAIT = 31 * 86400.0
"""No provider's period is longer than a month; longer waits are cut to this (and by each pool's own maximum)."""
NOW = 0.05
"""A hint of fewer seconds says "now": rounded down, or a moment that has just passed."""
FLOOR = 1.0
"""Seconds that a hint for now comes to, so that a refused call does not go round at once."""
_ADORNED = re.compile(r"[\"']?(?P<seconds>[0-9]{1,19}(?:\.[0-9]{1,18})?)(?: ?sec(?:ond)?s?)?[\"']?", re.IGNORECASE)
_PLAUSIBLE_SKEW = 86400.0
_NONSENSE = 1e13


def bounded(seconds: float | None) -> float | None:
    """A wait that makes sense: above 0 and at most `MAX_WAIT`; zero, negative and not-a-number are not known."""
    if seconds is None or not 0 < seconds < _NONSENSE:
        return None
    return min(seconds, MAX_WAIT)


def hint(seconds: float | None) -> float | None:
    """A provider's explicit wait: at most `MAX_WAIT`, 0.0 for one that says "now"; None where it makes no sense."""
    if seconds is None or not -_PLAUSIBLE_SKEW < seconds < _NONSENSE:
        return None
    return 0.0 if seconds < NOW else min(seconds, MAX_WAIT)


def floored(seconds: float) -> float:
    """A wait that is kept: `FLOOR` instead of now."""
    return FLOOR if seconds < NOW else min(seconds, MAX_WAIT)


def reference_clock(date: str | None, aged: bool, now: float) -> float:
    """The provider's own time when it answered: its `Date` where that is plausible, else our `now`."""
    if date is None or aged:
        return now
    theirs = dates.http_date(date, now)
    if theirs is None or abs(theirs - now) > _PLAUSIBLE_SKEW:
        return now
    return theirs


def reset(text: str, clock: float, encoding: str = "auto") -> float | None:
    """Seconds until the time or after the duration that `text` says.

    `encoding`: `delta` (seconds), `ms`, `epoch`, `epoch_ms`, `go`, `rfc3339`, `http_date`, or `auto`, which distinguishes them
    apart by form and size. A reset that is 0 or has just passed is 0.0.
    """
    if encoding != "auto":
        reader = _READERS.get(encoding)
        return None if reader is None else _reset_bounds(reader(text, clock))
    duration = numbers.go_duration(text)
    if duration is not None:
        return _reset_bounds(duration)
    moment = dates.rfc_3339(text)
    if moment is None:
        moment = dates.http_date(text, clock)
    if moment is not None:
        return _reset_bounds(moment - clock)
    return _reset_bounds(_by_size(numbers.decimal(text), clock))


def retry_after(values: list[str], clock: float) -> float | None:
    """The wait that one or more `Retry-After` fields state: the longest that can be read.

    Takes seconds (with a fraction, in quotes or with their unit as a word), HTTP-dates in the three formats, a Go duration, and an epoch where somebody sent
    that. Zero, negative values and moments of the last day say "now" (0.0); unreadable ones say nothing.
    """
    found = []
    for value in values:
        for part in parts(value):
            wait = hint(_one(part, clock))
            if wait is not None:
                found.append(wait)
    return max(found, default=None)


def _one(text: str, clock: float) -> float | None:
    if match := _ADORNED.fullmatch(text):
        text = match["seconds"]
    number = numbers.signed(text)
    if number is not None:
        return _by_size(number, clock)
    moment = dates.http_date(text, clock)
    if moment is None:
        moment = dates.rfc_3339(text)
    return numbers.go_duration(text) if moment is None else moment - clock


def parts(value: str) -> list[str]:
    """One field, or several joined with commas (an RFC 1123 date has a comma of its own)."""
    found: list[str] = []
    for piece in value[:1000].split(","):
        piece = piece.strip(" \t")
        if found and found[-1].isalpha() and found[-1].isascii():
            found[-1] = f"{found[-1]}, {piece}"
        else:
            found.append(piece)
    return found


def _by_size(number: float | None, clock: float) -> float | None:
    """Below 1e9 a delta, 1e9 to 1e10 an epoch, 1e11 to 1e14 an epoch in milliseconds, else nothing."""
    if number is None or number < 1e9:
        return number
    if number < 1e10:
        return number - clock
    if 1e11 <= number < 1e14:
        return number / 1000 - clock
    return None


def _reset_bounds(seconds: float | None) -> float | None:
    if seconds is None or not -_PLAUSIBLE_SKEW < seconds < _NONSENSE:
        return None
    return min(max(0.0, seconds), MAX_WAIT)


def _minus(number: float | None, clock: float, scale: float) -> float | None:
    return None if number is None else number * scale - clock


def _scaled(text: str, scale: float) -> float | None:
    number = numbers.decimal(text)
    return None if number is None else number * scale


def _date_minus(moment: float | None, clock: float) -> float | None:
    return None if moment is None else moment - clock


_READERS = {
    "delta": lambda text, clock: _scaled(text, 1.0),
    "ms": lambda text, clock: _scaled(text, 1e-3),
    "epoch": lambda text, clock: _minus(numbers.decimal(text), clock, 1.0),
    "epoch_ms": lambda text, clock: _minus(numbers.decimal(text), clock, 1e-3),
    "go": lambda text, clock: numbers.go_duration(text),
    "rfc3339": lambda text, clock: _date_minus(dates.rfc_3339(text), clock),
    "http_date": lambda text, clock: _date_minus(dates.http_date(text, clock), clock),
}
ENCODINGS = ("auto", *_READERS)
