"""Reads a page's form as a browser would send it back."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class Form(HTMLParser):
    """The names and values of the form whose id is `id`."""

    def __init__(self, html: str, id: str) -> None:
        super().__init__()
        self.id = id
        self.values: dict[str, list[str]] = {}
        self.names: set[str] = set()
        self._inside = False
        self._select: tuple[str, bool] | None = None
        self._chosen: list[str] = []
        self._first: str | None = None
        self._area: str | None = None
        self._text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._inside = given.get("id") == self.id
        if not self._inside:
            return
        name = given.get("name") or ""
        if tag == "input" and name:
            self._input(name, given)
        elif tag == "select" and name:
            self.names.add(name)
            self._select, self._chosen, self._first = (name, "multiple" in given), [], None
        elif tag == "option" and self._select is not None:
            value = given.get("value") or ""
            self._first = value if self._first is None else self._first
            if "selected" in given:
                self._chosen.append(value)
        elif tag == "textarea" and name:
            self.names.add(name)
            self._area, self._text = name, []

    def _input(self, name: str, given: dict[str, str | None]) -> None:
        kind = given.get("type") or "text"
        if kind in ("submit", "button", "file"):
            return
        self.names.add(name)
        if kind in ("checkbox", "radio"):
            if "checked" in given:
                self.values.setdefault(name, []).append(given.get("value") or "on")
        else:
            self.values.setdefault(name, []).append(given.get("value") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "select" and self._select is not None:
            name, multiple = self._select
            chosen = self._chosen or ([] if multiple or self._first is None else [self._first])
            if chosen:
                self.values[name] = chosen
            self._select = None
        elif tag == "textarea" and self._area is not None:
            text = "".join(self._text)
            self.values[self._area] = [text.removeprefix("\n")]
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._text.append(data)


def filled(html: str, model: str, **given: Any) -> dict[str, Any]:
    """What a browser sends of the page's form of `model`, with some fields filled in. Each must be on the page."""
    form = Form(html, f"{model}_form")
    assert form.names, f"there is no form of {model} on the page"
    missing = set(given) - form.names
    assert not missing, f"{missing} are not on the page, which has {sorted(form.names)}"
    return {**form.values, **given}
