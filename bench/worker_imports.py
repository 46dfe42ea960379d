"""What the imports of a worker process cost in memory, by package, and which of them a worker does not use.

    python -m bench.worker_imports [--top 25] [--modules]

A process imports what `manage.py rqworker io` imports, and notes how its resident memory grows while each module is
executed, without what this module imports in turn. `--modules`: by module instead of package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")
PROBE = """
import json
from bench.worker_imports import Probe
probe = Probe()
with probe:
    import django
    django.setup()
    import queues.management.commands.rqworker
    from django_rq.workers import get_worker
print(json.dumps(probe.report()))
"""


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


class Probe:
    """Attributes the growth of resident memory to the module that is executed."""

    def __init__(self) -> None:
        self._grown: Counter[str] = Counter()
        self._open: list[int] = []
        """What the modules below each one that is being executed have used."""
        self._before = resident()

    def __enter__(self) -> Probe:
        from importlib.machinery import ExtensionFileLoader, SourceFileLoader

        for loader in (SourceFileLoader, ExtensionFileLoader):
            self._wrap(loader, "exec_module", lambda module: module.__name__)
        self._wrap(ExtensionFileLoader, "create_module", lambda spec: spec.name)
        return self

    def __exit__(self, *exc: object) -> None:
        self._total = resident() - self._before

    def _wrap(self, loader: Any, name: str, name_of: Any) -> None:
        original = getattr(loader, name)

        def measured(this: Any, what: Any) -> Any:
            before = resident()
            self._open.append(0)
            try:
                return original(this, what)
            finally:
                used = resident() - before
                self._grown[name_of(what)] += used - self._open.pop()
                if self._open:
                    self._open[-1] += used

        setattr(loader, name, measured)

    def report(self) -> dict[str, Any]:
        return {"before": self._before, "total": self._total, "modules": self._grown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--modules", action="store_true", help="by module instead of package")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        environ = {
            **os.environ, "SLUICE_DATA_DIR": directory, "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "SLUICE_SECRET_KEY": "bench" * 12, "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
        }  # fmt: skip
        done = subprocess.run([sys.executable, "-c", PROBE], env=environ, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    grown: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for module, used in found["modules"].items():
        name = module if given.modules else ".".join(module.split(".")[: 2 if module.startswith("django.") else 1])
        grown[name] += used
        count[name] += 1
    mib = 1 << 20
    print(f"{found['before'] / mib:6.1f} MiB  Python itself, and this probe")
    for name, used in grown.most_common(given.top):
        print(f"{used / mib:6.1f} MiB  {name} ({count[name]} modules)")
    print(f"{(found['before'] + found['total']) / mib:6.1f} MiB  in all, {len(found['modules'])} modules")


if __name__ == "__main__":
    main()
