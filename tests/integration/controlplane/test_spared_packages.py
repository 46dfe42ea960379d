"""What our processes do not load, and that they can load it when something uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane import spared_packages

PROGRAM = """
import sys
import controlplane.asgi
names = sys.argv[1].split(",")
print(sorted(name for name in names if name in sys.modules))
for name in names:
    __import__(name)
import controlplane.admin.configuration, unfold.utils, rest_framework.views
assert unfold.utils.prettify_json({"a": 1}, None)
"""


def test_a_web_process_loads_none_of_them_until_they_are_used(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "DATABASE_"))}
    names = spared_packages.spared(is_postgresql=False, is_traced=False, has_tasks=False)
    started = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(names)],
        env={**inherited, "SLUICE_DATA_DIR": str(tmp_path), "SLUICE_SECRET_KEY": "k" * 50},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert started.stdout.strip() == "[]"


COMMAND = """
import sys
from controlplane.cli import main
main(["manage.py", "check", "--tag", "models"])
import queues.worker.threaded, queues.dispatcher.dispatcher
names = ["rich", "pygments", "opentelemetry", "cryptography.fernet"]
print([name for name in names if name in sys.modules])
import rich, pygments, cryptography.fernet
"""


def test_a_worker_loads_nothing_for_colours_and_no_cipher_before_it_is_used(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "DATABASE_"))}
    started = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env={**inherited, "SLUICE_DATA_DIR": str(tmp_path), "SLUICE_SECRET_KEY": "k" * 50},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert started.stdout.splitlines()[-1] == "[]"


def test_a_task_module_may_import_any_of_them(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "DATABASE_"))}
    names = spared_packages.spared(is_postgresql=False, is_traced=False, has_tasks=False)
    (tmp_path / "their_tasks.py").write_text("".join(f"import {name}\n" for name in names))
    started = subprocess.run(
        [sys.executable, "-c", "import sys, controlplane.asgi; print('their_tasks' in sys.modules)"],
        env={
            **inherited, "SLUICE_DATA_DIR": str(tmp_path), "SLUICE_SECRET_KEY": "k" * 50, "SLUICE_TASK_MODULES": "their_tasks",
            "PYTHONPATH": str(tmp_path),
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert started.stdout.strip() == "True"


def test_what_the_settings_need_is_loaded() -> None:
    assert "psycopg" not in spared_packages.spared(is_postgresql=True, is_traced=False, has_tasks=False)
    assert not {"opentelemetry", "requests"} & {
        *spared_packages.spared(is_postgresql=False, is_traced=True, has_tasks=False)
    }


def test_a_package_that_is_loaded_already_stays() -> None:
    with spared_packages.absent(("json", "sluice_has_no_such_package")):
        assert "json" in sys.modules
        with pytest.raises(ModuleNotFoundError):
            __import__("sluice_has_no_such_package")
    assert "sluice_has_no_such_package" not in sys.modules
