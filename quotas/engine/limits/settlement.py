"""Settling a reservation: what was reserved is replaced by what was used."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from quotas.engine.costs import check_amounts
from quotas.engine.keys import Keys
from quotas.engine.limits import codec
from quotas.engine.limits.requests import INDEX_SIZE
from quotas.engine.redis.scripts import Call, Script, bulk, packed
from quotas.engine.types import Settlement

_INDEX_SIZE = bulk(b"%d" % INDEX_SIZE)
_quoted = lru_cache(maxsize=4096)(json.JSONEncoder().encode)


def steps(
    keys: Keys,
    script: Script,
    reservation: str,
    actual: Mapping[str, int],
    now: bytes,
    reserved: Sequence[bytes] = (),
) -> Generator[Call | tuple[str, bytes], Any, Settlement | None]:
    """Yields commands and scripts, takes their replies. `now` in microseconds, or empty for the server's time.

    `reserved`: the reservation's counters, where they are known; its record is not read for them then.
    """
    check_amounts(actual)
    if not reserved:
        record = yield "GET", keys.reservation(reservation)
        if record is None:
            return None
        if record.startswith(b"="):
            return _settlement(reservation, record, repeated=True)
        reserved = record.partition(b"\n")[0].split()
    settled = yield _call(keys, script, reservation, actual, now, reserved)
    if settled is None:
        return None
    repeated = not settled.startswith(b"=" + _note(keys, actual, reserved).encode())
    found = _settlement(reservation, settled, repeated=repeated)
    return found if repeated else replace(found, limits=tuple(map(keys.limit_of, reserved)))


def call(
    keys: Keys, script: Script, reservation: str, actual: Mapping[str, int], now: bytes, reserved: Sequence[bytes]
) -> Call:
    """The script that settles a reservation whose counters are known."""
    check_amounts(actual)
    return _call(keys, script, reservation, actual, now, reserved)


def _call(
    keys: Keys, script: Script, reservation: str, actual: Mapping[str, int], now: bytes, reserved: Sequence[bytes]
) -> Call:
    sent, units, _ = _known(keys, tuple(reserved))
    named = {keys.unit(unit): used for unit, used in actual.items()}
    amounts = b"".join([codec.DOUBLE.pack(named.get(unit, -1)) for unit in units])
    return Call(
        script, (), (),
        packed(
            script, 1 + 2 * len(units), 5,
            bulk(keys.reservation(reservation)), sent,
            bulk(now), bulk(amounts), bulk(reservation.encode()), _INDEX_SIZE, bulk(_note(keys, actual, reserved).encode()),
        ),
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _known(keys: Keys, reserved: tuple[bytes, ...]) -> tuple[bytes, tuple[str, ...], str]:
    """Counters and their indexes as they are sent, the counters' units as keys spell them, and these as JSON."""
    sent = b"".join(map(bulk, [*reserved, *map(keys.index_of, reserved)]))
    units = tuple(map(keys.unit_of, reserved))
    return sent, units, ", ".join(map(_quoted, units))


def _note(keys: Keys, actual: Mapping[str, int], reserved: Sequence[bytes]) -> str:
    """What a repeated settlement is answered from: the actual use, and the unit of each counter."""
    _, units, named = _known(keys, tuple(reserved))
    odd = {spelt: unit for unit in actual if (spelt := keys.unit(unit)) != unit}
    if odd:
        named = ", ".join([_quoted(odd.get(unit, unit)) for unit in units])
    used = ", ".join([f"{_quoted(unit)}: {amount:d}" for unit, amount in actual.items()])
    return f'{{"actual": {{{used}}}, "units": [{named}]}}'


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
