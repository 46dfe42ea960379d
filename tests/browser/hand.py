"""An operator's hand: clicks and keys are counted, so that a test can say how many an interaction takes."""

from __future__ import annotations

from typing import Any

from tests.browser.arrivals import arrive

LONG = 100
"""Such a text is pasted."""


class Hand:
    """Counts what a person does. Text that is typed into the field that has the cursor is not counted: another way to
    say the same takes as much text."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.done: list[str] = []

    def click(self, target: str | Any) -> None:
        """One click on a selector's or locator's first element, once it is there."""
        found = (self.page.locator(target) if isinstance(target, str) else target).first
        found.click()
        self.done.append(f"click {target}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.done.append(f"key {key}")
        arrive(self.page)

    def choose(self, select: str, **option: str) -> None:
        """Open a list and take an item: two clicks."""
        self.page.select_option(select, **option)
        self.done += [f"open {select}", f"choose {option}"]

    def write(self, text: str, field: str = "") -> None:
        """Type into the field that has the cursor already; `field` is a selector that it must match."""
        into = field or "input, textarea"
        self.page.wait_for_function("s => document.activeElement && document.activeElement.matches(s)", arg=into)
        if len(text) < LONG:
            self.page.keyboard.type(text)
        else:
            self.page.keyboard.insert_text(text)

    def within(self, most: int) -> None:
        assert len(self.done) <= most, f"{len(self.done)} clicks and keys, at most {most}: {self.done}"
