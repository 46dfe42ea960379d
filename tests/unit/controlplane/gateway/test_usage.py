"""What a stream reports is found, and what the gateway requested is hidden, wherever the network cuts the stream."""

from __future__ import annotations

import pytest

from controlplane.gateway.usage import HEAD, MAX_EVENT, DocumentMeter, EventMeter
from quotas.engine import dialects

TEXT = b'data: {"choices": [{"delta": {"content": "a \\"usage\\": b"}}], "usage": null}'
USE = b'data: {"choices": [], "usage": {"total_tokens": 10}}'
DONE = b"data: [DONE]"


def tokens(dialect: str, meter: DocumentMeter | EventMeter) -> int | None:
    head, tail = meter.seen()
    kind = "text/event-stream" if isinstance(meter, EventMeter) else "application/json"
    return dialects.read(dialect, 200, {"content-type": kind}, head, tail=tail).usage.get("tokens")


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_only_the_event_that_was_asked_for_is_hidden(end: bytes, size: int) -> None:
    stream = end.join([TEXT, TEXT, USE, DONE, b""])
    meter = EventMeter(hide=True)
    passed = b"".join(meter.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + meter.end()
    assert passed == end.join([TEXT, TEXT, DONE, b""])
    assert tokens("openai", meter) == 10


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_stream_that_hides_nothing_passes_as_it_comes(size: int) -> None:
    stream = b"\n\n".join([TEXT, USE, DONE]) + b"\n\n" + USE  # the last one has no end
    meter = EventMeter()
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert [meter.feed(part) for part in parts] == parts
    assert meter.end() == b""
    assert tokens("openai", meter) == 10 and meter.events == 4


@pytest.mark.parametrize("hide", [False, True])
def test_events_that_come_one_by_one_are_read_as_those_that_come_cut(hide: bool) -> None:
    """Also where an event has other line ends than the next one: then a part is not one event, though it ends as one."""
    ping, mixed = b": ping\n\n", USE + b"\r\n\r\n" + TEXT + b"\n\n"
    parts = [TEXT + b"\n\n", ping, mixed, b"\n", TEXT + b"\n\n", USE + b"\n\n", DONE + b"\n\n"]
    whole, cut = EventMeter(hide=hide), EventMeter(hide=hide)
    passed = b"".join(map(whole.feed, parts)) + whole.end()
    assert (
        passed == b"".join([cut.feed(b"".join(parts)[at : at + 1]) for at in range(len(b"".join(parts)))]) + cut.end()
    )
    assert (whole.events, whole.seen()) == (cut.events, cut.seen()) and whole.events == 6
    assert (USE in passed) is not hide and passed.count(TEXT) == 3


def test_a_stream_of_anthropic_reports_at_both_ends() -> None:
    meter = EventMeter()
    meter.feed(b'event: message_start\ndata: {"type": "message_start", "message": {"usage": {"input_tokens": 5}}}\n\n')
    for _ in range(10_000):
        meter.feed(b'data: {"type": "content_block_delta"}\n\n')
    meter.feed(b'data: {"type": "message_delta", "usage": {"output_tokens": 7}}\n\n')
    assert tokens("anthropic", meter) == 12
    assert len(meter.seen()[0]) < 1000


def test_an_event_without_an_end_costs_a_bounded_buffer() -> None:
    meter = EventMeter(hide=True)
    passed = 0
    for _ in range(100):
        passed += len(meter.feed(b"x" * 100_000))
        assert len(meter._rest) <= MAX_EVENT + 100_000
    assert passed + len(meter.end()) + len(meter._rest) <= 10_000_000
    assert passed >= 10_000_000 - MAX_EVENT - 100_000


def test_the_use_of_a_long_document_stands_at_its_end() -> None:
    meter = DocumentMeter()
    meter.feed(b'{"data": [' + b"1, " * HEAD)
    meter.feed(b'1], "usage": {"prompt_tokens": 3, "total_tokens": 3}}')
    assert tokens("openai", meter) == 3
