"""The command line: flags to `Settings`, with errors that name the flag."""

from __future__ import annotations

import argparse
from typing import Any

from controlplane.simulator.dialects import DIALECTS
from controlplane.simulator.limits import KeyLimits, amount
from controlplane.simulator.provider import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=9100, help="port to listen on; 0 takes a free one")
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="openai", help="whose API is simulated")
    parser.add_argument("--rpm", type=_amount, help="requests per minute and key; not given: no limit")
    parser.add_argument("--tpm", type=_amount, help="tokens per minute and key; not given: no limit")
    parser.add_argument("--burst", type=_amount, help="capacity of the bucket of requests; not given: as --rpm")
    parser.add_argument("--concurrency", type=_count, help="calls in flight per key; not given: no limit")
    parser.add_argument("--latency", type=_amount, default=0, metavar="MS", help="milliseconds that each answer takes")
    parser.add_argument("--error-rate", type=_share, default=0.0, metavar="F", help="share of 5xx answers, 0 to 1")
    parser.add_argument("--seed", type=int, help="makes random choices repeatable")
    parser.add_argument(
        "--key",
        dest="keys",
        action="extend",
        nargs="+",
        default=[],
        metavar="K:rpm=..,tpm=..,burst=..",
        help="limits of one key (also concurrency, tpm_burst); the rest as the flags say",
    )
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends")


def settings_from(options: dict[str, Any]) -> Settings:
    """The parsed flags as `Settings`; ValueError says which `--key` is wrong."""
    defaults = KeyLimits(options["rpm"], options["tpm"], options["burst"], options["concurrency"])
    keys: dict[str, KeyLimits] = {}
    for text in options["keys"]:
        try:
            key, limits = KeyLimits.parse(text, defaults)
        except ValueError as error:
            raise ValueError(f"--key {error}") from None
        if key in keys:
            raise ValueError(f"--key {key!r} is given twice")
        keys[key] = limits
    return Settings(
        dialect=options["dialect"],
        defaults=defaults,
        keys=keys,
        latency=options["latency"] / 1000,
        error_rate=options["error_rate"],
        seed=options["seed"],
    )


def _amount(text: str) -> float:
    try:
        return amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    value = _amount(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(value)


def _share(text: str) -> float:
    value = _amount(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return float(value)


def _port(text: str) -> int:
    value = _count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return value
