"""Bodies that are compressed: read, where they must be, without letting a small body become a huge one.

The gateway requests plain answers of providers. Where one compresses all the same, its answer is passed on decoded: what it used,
and a credential that it echoes, could not be found otherwise.
"""

from __future__ import annotations

import zlib

_GZIP = frozenset({"gzip", "x-gzip"})
_DEFLATE = "deflate"
_EITHER = zlib.MAX_WBITS | 32
"""gzip or zlib, as the body's beginning says."""
_RAW = -zlib.MAX_WBITS
"""Deflate without the header of zlib, as some servers send it (https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1.2)."""
_ZLIB_METHOD = 8
"""The lower half of the first byte of a body in zlib's format (https://www.rfc-editor.org/rfc/rfc1950#section-2.2)."""
_GZIP_START = b"\x1f\x8b"
MOST = 8 * 1024 * 1024
"""Bytes that one part of a body may become."""
MEMBERS = 100
"""gzip members that may end in one part of a body: each is a copy of what follows it."""


class Undecodable(Exception):
    """The body is not what its encoding says."""


class Decoder:
    """Decodes a body as it comes. Raises `Undecodable`."""

    def __init__(self, encoding: str) -> None:
        self._may_be_raw = encoding == _DEFLATE
        self._inflate = zlib.decompressobj(_EITHER)
        self._has_begun = False

    def feed(self, part: bytes) -> bytes:
        found = self.beginning(part, MOST)
        if self._inflate.unconsumed_tail:
            raise Undecodable("it becomes too large")
        return found

    def beginning(self, part: bytes, most: int) -> bytes:
        """As `feed`, and at most so many bytes: the rest is dropped."""
        if not self._has_begun and part:
            self._has_begun = True
            if self._may_be_raw and part[0] & 0x0F != _ZLIB_METHOD:
                self._inflate = zlib.decompressobj(_RAW)
        found = self._decompressed(part, most)
        members = 0
        while self._inflate.eof and self._inflate.unused_data.startswith(_GZIP_START):
            members += 1
            if members > MEMBERS:
                raise Undecodable("it has too many members")
            # A body may consist of several gzip members (https://www.rfc-editor.org/rfc/rfc1952#section-2.2).
            rest, self._inflate = self._inflate.unused_data, zlib.decompressobj(_EITHER)
            found += self._decompressed(rest, most - len(found))
        return found

    def _decompressed(self, part: bytes, most: int) -> bytes:
        try:
            return self._inflate.decompress(part, max(1, most))
        except zlib.error as error:
            raise Undecodable(str(error)) from None

    def end(self) -> bytes:
        if self._has_begun and not self._inflate.eof:
            raise Undecodable("it ends early")
        return self._inflate.flush()


def decoder_of(encoding: str) -> Decoder | None:
    """None for a body that is plain, or in an encoding that is passed on as it is."""
    name = encoding.strip().lower()
    return Decoder(name) if name in _GZIP or name == _DEFLATE else None


def is_plain(encoding: str) -> bool:
    return encoding.strip().lower() in ("", "identity")


def decoded(body: bytes, encoding: str, limit: int) -> bytes | None:
    """At most `limit` bytes of a decoded body; None for an encoding that is not known, or a body that is not in it."""
    if is_plain(encoding):
        return body[:limit]
    decoder = decoder_of(encoding)
    if decoder is None:
        return None
    try:
        return decoder.beginning(body, limit)[:limit]
    except Undecodable:
        return None
