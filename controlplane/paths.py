"""Where this code runs from: a checkout of the project, or an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent
"""`controlplane/`, which contains the templates and presets, in a checkout and in a wheel."""
_MANAGE = PACKAGE_DIR.parent / "manage.py"
CHECKOUT = PACKAGE_DIR.parent if _MANAGE.exists() else None
"""The project's directory, or None where the package is installed and there is no `manage.py` beside it."""


def default_home() -> Path:
    """The directory in which `var/` is by default: the checkout, else the working directory."""
    return CHECKOUT or Path.cwd()
