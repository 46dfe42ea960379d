"""One verb of one peer, in the interpreter that has it: `python -m bench.durable.peer NAME VERB [NUMBERS]`.

NAME is the beginning of a module's name here, such as `awa` of `awa_peer`. Each module has four functions, each plain or async: `prepare()` makes the tables,
`fill(count)` submits jobs in bulk, `steady(rate, seconds)` submits at a fixed rate, `work()` is a worker process.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys


def main() -> None:
    name, verb, *numbers = sys.argv[1:]
    call = getattr(importlib.import_module(f"bench.durable.{name}_peer"), verb)
    outcome = call(*map(float, numbers))
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


if __name__ == "__main__":
    main()
