"""The Chromium that the browser tests run in: Debian's, without its windows if that package is installed."""

from __future__ import annotations

import shutil


def chromium() -> str | None:
    """A path. The headless shell is the same engine, and needs two thirds of the processor's time."""
    return shutil.which("chromium-headless-shell") or shutil.which("chromium")
