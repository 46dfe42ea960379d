"""Titles of pages, without names of applications, and times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django import template
from django.db.models import Model
from django.urls import resolve
from django.utils.text import capfirst

from quotas.moments import SECONDS, spell_moment

register = template.Library()


@register.filter
def page_path(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a page's path. Applications are left out: the navigation is not grouped by them."""
    return [part for part in parts if not part.get("link") or resolve(str(part["link"])).url_name != "app_list"]


@register.filter
def title_text(title: Any) -> str:
    """An object's name is not capitalised: `llm` is not `Llm`."""
    return str(title) if isinstance(title, Model) else str(capfirst(title))


@register.filter
def moment(at: datetime | None, form: str = SECONDS) -> str:
    """In the person's time zone, with its name."""
    return "" if at is None else spell_moment(at, form)


@register.filter
def as_words(code: str) -> str:
    """A code as words: `rate limited`."""
    return code.replace("_", " ")
