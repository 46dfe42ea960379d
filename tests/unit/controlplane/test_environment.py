"""The environment: typed, checked at once, and documented in full."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.environment import Environment, name_of, read

ROOT = Path(__file__).resolve().parents[3]
READ_ELSEWHERE = {
    "controlplane/instance.py": ["os.environ.get"],  # SLUICE_DATA_DIR, before settings: `--data-dir` sets it
    "controlplane/parent_death.py": ["os.environ.get"],  # SLUICE_SUPERVISED, between `up` and its children
    "controlplane/supervisor/child.py": ["os.environ"],  # children get it all
}
"""By module, what it reads itself."""


def test_nothing_set_gives_the_defaults():
    assert read({}) == Environment()
    assert read({"SLUICE_GRACE": "  "}).grace == 25.0


def test_values_are_typed():
    found = read(
        {
            "SLUICE_CONCURRENCY": "1000",
            "SLUICE_HTTPS": "Yes",
            "SLUICE_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32",
            "SLUICE_LOG_LEVEL": "debug",
            "SLUICE_TASK_MODULES": "one.tasks, two.tasks,",
        }
    )
    assert found.concurrency == 1000 and found.https is True and found.log_level == "DEBUG"
    assert [str(network) for network in found.trusted_proxies] == ["10.0.0.0/8", "2001:db8::/32"]
    assert found.task_modules == ("one.tasks", "two.tasks")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("SLUICE_GRACE", "abc", "must be a number of 0 or more"),
        ("SLUICE_GRACE", "nan", "must be a number of 0 or more"),
        ("SLUICE_GRACE", "-1", "must be a number of 0 or more"),
        ("SLUICE_CONCURRENCY", "0", "must be a whole number from 1 to 100000"),
        ("SLUICE_CONCURRENCY", "1e3", "must be a whole number"),
        ("SLUICE_ALERT_ERROR_RATE", "20", "must be a number from 0 to 1"),
        ("SLUICE_IPV6_PREFIX", "129", "must be a whole number from 1 to 128"),
        ("SLUICE_HTTPS", "maybe", "must be true or false"),
        ("SLUICE_LOG_FORMAT", "xml", "must be one of json, console"),
        ("SLUICE_TRUSTED_PROXIES", "10.0.0.1/8", "must be networks"),
        ("REDIS_URL", "localhost:6379", "must be a URL that begins with redis://"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "must be a URL that begins with postgres://"),
        ("SLUICE_CREDENTIAL_KEYS", "hunter2", "key 1 is not a Fernet key"),
    ],
)
def test_a_wrong_value_names_its_variable_and_repeats_no_secret(name, value, reason):
    with pytest.raises(ImproperlyConfigured) as caught:
        read({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} ") and reason in message and "hunter2" not in message


def test_all_mistakes_come_at_once():
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"SLUICE_GRACE": "x", "SLUICE_MAX_JOBS": "-3"})
    assert len(str(caught.value).splitlines()) == 2


def test_a_command_ends_with_one_clear_line():
    environ = {**os.environ, "SLUICE_GRACE": "soon"}
    done = subprocess.run([sys.executable, "manage.py", "check"], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.strip() == "SLUICE_GRACE must be a number of 0 or more."


def test_every_variable_is_documented_and_every_documented_one_exists():
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)`", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE))
    assert documented == {name_of(item) for item in fields(Environment)} | {"SLUICE_DATA_DIR"}


def reads(path: Path) -> list[str]:
    """The lines in which a module reads the environment, whatever it calls it. `setdefault` and assignments set it."""
    found = []
    tree = ast.parse(path.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            found += [f"import of {name.name}" for name in node.names if name.name in {"environ", "environb", "getenv"}]
        if not (isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb", "os.getenv"}):
            continue
        use = parents[node]
        sets = isinstance(use, ast.Subscript) and not isinstance(use.ctx, ast.Load)
        if not sets and not (isinstance(use, ast.Attribute) and use.attr == "setdefault"):
            found.append(ast.unparse(node if isinstance(use, ast.Dict) else use))
    return found


def test_no_other_module_reads_the_environment():
    found = {
        str(path.relative_to(ROOT)): uses
        for package in ("controlplane", "queues", "quotas")
        for path in sorted((ROOT / package).rglob("*.py"))
        if (uses := reads(path))
    }
    assert found.pop("controlplane/environment.py")
    assert found == READ_ELSEWHERE


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nos.environ['A']", ["os.environ['A']"]),
        ("import os\nos.getenv('A')", ["os.getenv('A')"]),
        ("import os\nos.environ.get('A')", ["os.environ.get"]),
        ("import os\nother = os.environ", ["other = os.environ"]),
        ("from os import environ, getenv", ["import of environ", "import of getenv"]),
        ("import os\nos.environ['A'] = 'b'\nos.environ.setdefault('A', 'b')", []),
    ],
)
def test_reading_the_environment_is_found(tmp_path: Path, source: str, found: list[str]):
    module = tmp_path / "module.py"
    module.write_text(source)
    assert reads(module) == found
