"""Bodies that are compressed: read, where they must be, without letting a small body become a huge one.

The gateway requests plain answers of providers. Where one compresses all the same, its answer is passed on decoded: what it used,
and a credential that it echoes, could not be found otherwise.
"""

from __future__ import annotations

import zlib

_ZLIB = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER = zlib.MAX_WBITS | 32
"""gzip or zlib, as the body's beginning says."""
MOST = 8 * 1024 * 1024
"""Bytes that one part of a body may become."""


class Undecodable(Exception):
    """The body is not what its encoding says."""


class Decoder:
    """Decodes a body as it comes. Raises `Undecodable`."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_EITHER)

    def feed(self, part: bytes) -> bytes:
        try:
            found = self._inflate.decompress(part, MOST)
        except zlib.error as error:
            raise Undecodable(str(error)) from None
        if self._inflate.unconsumed_tail:
            raise Undecodable("it becomes too large")
        return found

    def end(self) -> bytes:
        return self._inflate.flush()


def decoder_of(encoding: str) -> Decoder | None:
    """None for a body that is plain, or in an encoding that is passed on as it is."""
    return Decoder() if encoding.strip().lower() in _ZLIB else None


def is_plain(encoding: str) -> bool:
    return encoding.strip().lower() in ("", "identity")


def decoded(body: bytes, encoding: str, limit: int) -> bytes | None:
    """At most `limit` bytes of a decoded body; None for an encoding that is not known, or a body that is not in it."""
    if is_plain(encoding):
        return body[:limit]
    if encoding.strip().lower() not in _ZLIB:
        return None
    try:
        return zlib.decompressobj(_EITHER).decompress(body, limit)
    except zlib.error:
        return None
