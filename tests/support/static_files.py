"""WhiteNoise lists all static files whenever a handler is made, which each `django.test.Client` does: here once per
process."""

from __future__ import annotations

from typing import Any

from whitenoise.middleware import WhiteNoiseMiddleware

_list_files = WhiteNoiseMiddleware.add_files_from_finders
_listed: dict[str, Any] = {}


def install() -> None:
    WhiteNoiseMiddleware.add_files_from_finders = _add_listed


def _add_listed(self: WhiteNoiseMiddleware) -> None:
    if not _listed:
        _list_files(self)
        _listed.update(self.files)
    self.files.update(_listed)
