"""Dates as providers write them, in strict ASCII, as Unix seconds."""

from __future__ import annotations

import calendar
import re
from datetime import datetime

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_TIME = r"(?P<hour>[0-2][0-9]):(?P<minute>[0-5][0-9]):(?P<second>[0-6][0-9])"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
HTTP_DATE_PATTERNS = (
    rf"{_DAY}, (?P<day>[0-3][0-9]) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} (?:GMT|UTC)",
    rf"{_LONG_DAY}, (?P<day>[0-3][0-9])-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} (?:GMT|UTC)",
    rf"{_DAY} {_MONTH} (?P<day>[ 0-3]?[0-9]) {_TIME} (?P<year>[0-9]{{4}})",
)
_HTTP_DATES = tuple(re.compile(pattern) for pattern in HTTP_DATE_PATTERNS)
_JS_DATE = re.compile(
    rf"{_DAY} {_MONTH} (?P<day>[0-3][0-9]) (?P<year>[0-9]{{4}}) {_TIME} "
    r"GMT(?P<sign>[+-])(?P<oh>[0-1][0-9])(?P<om>[0-5][0-9])(?: \([A-Za-z ]{1,60}\))?"
)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-1][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-2][0-9]:[0-5][0-9])"
)


def http_date(text: str, now: float) -> float | None:
    """Unix seconds of an HTTP-date: RFC 1123, RFC 850 or asctime (RFC 9110, 5.6.7); also JavaScript's `Date` text.

    `now` decides the century of RFC 850's two digits: the one that is at most 50 years ahead.
    """
    text = text.strip(" \t")
    for pattern in _HTTP_DATES:
        if match := pattern.fullmatch(text):
            return _moment(match, now)
    if match := _JS_DATE.fullmatch(text):
        moment = _moment(match, now)
        offset = (int(match["oh"]) * 60 + int(match["om"])) * 60
        return None if moment is None else moment - (offset if match["sign"] == "+" else -offset)
    return None


def rfc_3339(text: str) -> float | None:
    """Unix seconds of `2026-09-27T12:34:56Z`, with or without a fraction, with any offset; None without an offset."""
    text = text.strip(" \t")
    if not _RFC_3339.fullmatch(text):
        return None
    text = re.sub(r"(\.[0-9]{1,6})[0-9]*", r"\1", text.upper().replace(" ", "T"))
    whole, dot, rest = text.partition(".")
    if dot:
        digits = re.match(r"[0-9]+", rest)
        width = digits.end() if digits else 0
        text = f"{whole}.{rest[:width]:0<6}{rest[width:]}"
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


def _moment(match: re.Match[str], now: float) -> float | None:
    year = int(match["year"])
    if len(match["year"]) == 2:
        this_year = 1970 + int(now // 31_556_952)
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    day, month, hour = int(match["day"]), _MONTHS[match["month"]], int(match["hour"])
    if year < 1970 or hour > 23 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return float(calendar.timegm((year, month, day, hour, int(match["minute"]), int(match["second"]))))
