"""Compressed bodies in each form that servers send, and none that becomes too large."""

from __future__ import annotations

import gzip
import zlib

import pytest

from controlplane.gateway.encodings import MEMBERS, MOST, Undecodable, decoded, decoder_of

TEXT = b'{"usage": {"total_tokens": 42}}' * 50


def raw_deflate(data: bytes) -> bytes:
    compress = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compress.compress(data) + compress.flush()


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT[:99]) + gzip.compress(b"") + gzip.compress(TEXT[99:])),
        (" Deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("gzip", gzip.compress(TEXT) + b"\0" * 20),
    ],
    ids=["gzip", "members", "zlib", "raw", "padded"],
)
def test_each_form_is_decoded_wherever_it_is_cut(encoding: str, body: bytes, size: int) -> None:
    decoder = decoder_of(encoding)
    assert decoder is not None
    parts = [decoder.feed(body[at : at + size]) for at in range(0, len(body), size)]
    assert b"".join(parts) + decoder.end() == TEXT
    assert decoded(body, encoding, 10_000) == TEXT and decoded(body, encoding, 10) == TEXT[:10]


def test_what_is_not_in_its_encoding_is_refused() -> None:
    for encoding in ("gzip", "deflate"):
        decoder = decoder_of(encoding)
        assert decoder is not None
        with pytest.raises(Undecodable):
            decoder.feed(b"\xff" * 100)
    assert decoded(b"\xff" * 100, "gzip", 10) is None and decoded(b"x", "br", 10) is None
    assert decoder_of("br") is None and decoder_of("") is None


@pytest.mark.parametrize("body", [gzip.compress(b"\0" * (MOST + 1)), gzip.compress(b"") * (MEMBERS + 2)])
def test_a_part_that_becomes_too_much_is_refused(body: bytes) -> None:
    decoder = decoder_of("gzip")
    assert decoder is not None
    with pytest.raises(Undecodable):
        decoder.feed(body)
