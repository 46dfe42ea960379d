"""A client of Sluice's REST API in a few lines of the standard library, shared by the examples."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

URL = os.environ.get("SLUICE_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("SLUICE_KEY", "")


def call(method: str, path: str, body: Any = None, **headers: str) -> Any:
    """The parsed response of one call below `/api/v1/`. Waits for `Retry-After` and repeats; raises SystemExit on other errors."""
    while True:
        request = urllib.request.Request(
            f"{URL}/api/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            wait = error.headers.get("Retry-After")
            if error.code not in (429, 503) or wait is None:
                raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from None
            time.sleep(float(wait))
