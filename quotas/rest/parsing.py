"""Request bodies: strict JSON (RFC 8259, I-JSON's rules on names and text) and nothing else.

The fast path is one `json.loads`. Only invalid text is parsed again, to find the place of the mistake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.parsers import BaseParser

from quotas.rest.pointers import pointer
from quotas.rest.problems import InvalidRequest


class StrictJSONParser(BaseParser):
    """One JSON object, UTF-8, no duplicate members, no NaN, no NUL, no half surrogates, within the size limit."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise RequestDataTooBig(f"A body may have {limit} bytes.")
        return parse_object(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """The object in `body`. Raises `InvalidRequest` that names the place of the first mistake."""
    if not body:
        return {}
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest.at("#", f"is not UTF-8 at byte {error.start}") from None
    try:
        if text.startswith("\ufeff"):
            raise InvalidRequest.at("#", "is not JSON: it begins with a byte order mark")
        value = _decode(text)
    except _Suspect:
        _explain(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest.at("#", f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise InvalidRequest.at("#", "is nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidRequest.at("#", "must be a JSON object")
    if b"\\u" in body:  # NUL and lone surrogates can come in as escapes only
        _check_text(value, ())
    return value


class _Suspect(Exception):
    """Something in the text needs a second look."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Suspect
    return made


def _refuse(name: str) -> NoReturn:
    raise _Suspect


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise _Suspect
    return number


def _whole(text: str) -> int:
    if len(text) > 400:  # longer than any finite float
        raise _Suspect
    return int(text)


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite, parse_int=_whole
).decode


class _Bad:
    """Stands in the second reading where a number would be that is none."""

    def __init__(self, text: str) -> None:
        self.text = text if len(text) <= 40 else text[:40] + "…"


class _Pairs(list[tuple[str, Any]]):
    """An object's members with their repetitions."""


def _explain(text: str) -> NoReturn:
    def number(found: str) -> float | _Bad:
        value = float(found)
        return value if value - value == 0 else _Bad(found)

    whole = json.loads(
        text,
        object_pairs_hook=_Pairs,
        parse_constant=_Bad,
        parse_float=number,
        parse_int=lambda found: _Bad(found) if len(found) > 400 else 0,
    )
    _walk(whole, ())
    raise InvalidRequest.at("#", "is not JSON")


def _walk(value: Any, path: tuple[str | int, ...]) -> None:
    if isinstance(value, _Bad):
        raise InvalidRequest.at(pointer(*path), f"{value.text} is not a finite number")
    if isinstance(value, _Pairs):
        seen = set()
        for name, inner in value:
            if name in seen:
                raise InvalidRequest.at(pointer(*path, name), "appears twice")
            seen.add(name)
            _walk(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _walk(inner, (*path, index))


def _check_text(value: Any, path: tuple[str | int, ...]) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidRequest.at(pointer(*path), "must not contain the character NUL")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise InvalidRequest.at(pointer(*path), "contains half of a surrogate pair, which is no character")
    elif isinstance(value, dict):
        for name, inner in value.items():
            try:
                _check_text(name, ())
            except InvalidRequest:
                raise InvalidRequest.at(pointer(*path), "has a member whose name is not text") from None
            _check_text(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_text(inner, (*path, index))
