"""What the demonstration asks its simulated model."""

from __future__ import annotations

import random

_THINGS = ("a compiler", "a mail server", "fonts", "a debugger", "a window manager", "a parser", "a game of patience")


def prompt(chance: random.Random) -> str:
    return f"Describe {chance.choice(_THINGS)} in one line."
