"""Each field of the stored state of an account or pool is named in the script that defines it."""

from __future__ import annotations

import re
from pathlib import Path

import quotas.engine

SCRIPTS = Path(quotas.engine.__path__[0]) / "lua"
TRANSIENT = {"off", "raw"}
"""Set when a state is loaded, and not stored."""


FIELD = r"(?<![\w.])(?:s|p|pool)\.(?!lua\b)(\w+)"


def test_every_field_of_a_state_is_named() -> None:
    header = (SCRIPTS / "account/state.lua").read_text().partition("local LIFE")[0]
    rows = re.findall(r"^--   (\w+(?:, \w+)*) +[a-z]\w+\b", header, re.MULTILINE)
    named = {field for row in rows for field in row.split(", ")}
    used = {field for path in SCRIPTS.rglob("*.lua") for field in re.findall(FIELD, path.read_text())}
    named -= {"field"}
    assert len(used) > 30
    assert used - named - TRANSIENT == set(), "fields that the table lacks"
    assert named - used == set(), "fields that no script uses"
