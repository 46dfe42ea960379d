"""Lists: newest first, by keyset, so that each row comes exactly once while others are added."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from rest_framework import serializers

from quotas.rest.problems import InvalidRequest
from quotas.rest.serializers import QuerySerializer
from quotas.shapes import Page

M = TypeVar("M", bound=Model)
DEFAULT_LIMIT = 50
MAX_LIMIT = 500
_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,128}={0,2}")


class PageQuery(QuerySerializer):
    """Base of a list's query: `limit` and `cursor`. Filters are further fields."""

    limit = serializers.IntegerField(min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT)
    cursor = serializers.CharField(required=False, max_length=200)


def page(rows: QuerySet[M], query: dict[str, Any], shown: Callable[[M], Any], order: str = "pk") -> dict[str, Any]:
    """`{"results": [...], "next": cursor or None}`.

    `order` names a column that is unique and rises with each new row (the primary key, or a sortable id): the
    cursor is the last value shown, and the next page begins right below it.
    """
    below = position(rows, query, order)
    if below is not None:
        rows = rows.filter(**{f"{order}__lt": below})
    limit = query["limit"]
    found = list(rows.order_by(f"-{order}")[: limit + 1])
    following = encode(str(getattr(found[limit - 1], order))) if len(found) > limit else None
    return Page.of(results=[shown(row) for row in found[:limit]], next=following)


def position(rows: QuerySet[M], query: dict[str, Any], order: str = "pk") -> Any:
    """The value of `order` below which the page begins; None for the first page."""
    cursor = query.get("cursor")
    return None if cursor is None else _value(rows, order, cursor)


def encode(value: str) -> str:
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """The value inside; 400 for what was never a cursor of ours."""
    try:
        if not _CURSOR.fullmatch(cursor):
            raise ValueError(cursor)
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None


def _value(rows: QuerySet[M], order: str, cursor: str) -> Any:
    field = rows.model._meta.pk if order == "pk" else rows.model._meta.get_field(order)
    text = decode(cursor)
    if not re.fullmatch(r"[0-9a-z]{1,40}", text):
        raise _bad_cursor()
    try:
        value = field.to_python(text)  # type: ignore[union-attr]
    except ValidationError:
        raise _bad_cursor() from None
    if isinstance(value, int) and value >= 2**63:
        raise _bad_cursor()
    return value


def _bad_cursor() -> InvalidRequest:
    return InvalidRequest.at("?cursor", "is no cursor of this list")
