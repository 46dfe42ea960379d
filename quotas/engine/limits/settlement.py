"""Settling a reservation: what was reserved is replaced by what was used."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

from quotas.engine.costs import check_amounts
from quotas.engine.keys import Keys
from quotas.engine.limits import codec
from quotas.engine.limits.requests import INDEX_SIZE
from quotas.engine.redis.scripts import Call, Script
from quotas.engine.types import Settlement


def steps(
    keys: Keys, script: Script, reservation: str, actual: Mapping[str, int], now: bytes
) -> Generator[Call | tuple[str, bytes], Any, Settlement | None]:
    """Yields commands and scripts, takes their replies. `now` in microseconds, or empty for the server's time."""
    check_amounts(actual)
    key = keys.reservation(reservation)
    record = yield "GET", key
    if record is None:
        return None
    if not record.startswith(b"="):
        counters = record.partition(b"\n")[0].split()
        units = [keys.unit_of(counter) for counter in counters]
        named = {keys.unit(unit): used for unit, used in actual.items()}
        amounts = b"".join(codec.DOUBLE.pack(named.get(unit, -1)) for unit in units)
        names = {keys.unit(unit): unit for unit in actual}
        note = json.dumps({"actual": actual, "units": [names.get(unit, unit) for unit in units]})
        settled = yield Call(
            script,
            [key, *counters, *map(keys.index_of, counters)],
            [now, amounts, reservation, INDEX_SIZE, note],
        )
        if settled is None:
            return None
        repeated = not settled.startswith(b"=" + note.encode())
        found = _settlement(reservation, settled, repeated=repeated)
        return found if repeated else replace(found, limits=tuple(map(keys.limit_of, counters)))
    return _settlement(reservation, record, repeated=True)


def _settlement(reservation: str, settled: bytes, *, repeated: bool) -> Settlement:
    text, _, packed = settled[1:].partition(b"\n")
    note = json.loads(text)
    refunded: dict[str, int] = {}
    for unit, (back,) in zip(note["units"], codec.DOUBLE.iter_unpack(packed), strict=True):
        if unit not in note["actual"]:
            continue
        back = int(back)
        # Of several limits in one unit, the one that moved the most gives the unit's total.
        if unit not in refunded or abs(back) > abs(refunded[unit]):
            refunded[unit] = back
    return Settlement(reservation, note["actual"], refunded, repeated)
