"""The pictures of docs/operators/: made from the pages as they are, and each shown by the documentation.

DOCS_PICTURES=1 python -m pytest tests/browser/test_pictures.py      replaces them
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import SHOTS, Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "operators"
MOST = 150_000
"""Bytes of one picture."""


def test_pictures_of_the_console(visit: Open, day: Day) -> None:
    pages = {
        "dashboard": ("", ".sl-tile, .sl-card"),
        "job": (f"queues/job/{day.dead.pk}/change/", "#content"),
        "policy": (f"quotas/policy/{day.policy.pk}/change/", "#policy-use tbody tr"),
        "failures": ("queues/deadletter/groups/", "#groups tbody tr"),
    }
    root = visit("root")
    root.page.set_viewport_size({"width": 1200, "height": 760})
    folder = DOCS if os.environ.get("DOCS_PICTURES") else SHOTS
    folder.mkdir(parents=True, exist_ok=True)
    for name, (path, shown) in pages.items():
        root.go(path)
        root.page.locator(shown).first.wait_for()
        root.page.wait_for_load_state("networkidle")
        picture = root.page.screenshot(path=folder / f"{name}.png")
        assert 5_000 < len(picture) < MOST, f"{name}: {len(picture)} bytes"
    named = {name for page in DOCS.glob("*.md") for name in re.findall(r"\]\(([\w-]+)\.png\)", page.read_text())}
    assert named == pages.keys() == {path.stem for path in DOCS.glob("*.png")}
    assert root.complaints == []
