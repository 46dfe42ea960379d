"""The dashboard and the rules in deploy/ use metrics and labels that exist, and the rules do what their tests say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from controlplane.observability.exposition import registry
from queues.services.defaults import create_defaults

DEPLOY = Path(__file__).resolve().parents[4] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
TESTS = DEPLOY / "prometheus" / "alerts_test.yaml"
SELECTOR = re.compile(r"\b(sluice_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "sluice.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in rules())
    yield from ((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"])


@pytest.fixture
def exposed(db: None, valkey: redis.Redis) -> dict[str, set[str]]:
    """The labels of each series by its name."""
    create_defaults()
    found = {}
    for family in registry().collect():
        labels = set(getattr(family, "_labelnames", ()))
        for suffix in SUFFIXES[family.type]:
            found[f"{family.name}{suffix}"] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def test_every_metric_and_label_exists(exposed: dict[str, set[str]]) -> None:
    used = set()
    for where, expression in expressions():
        labels: set[str] = set()
        for name, matchers in SELECTOR.findall(expression):
            assert name in exposed, f"{where}: there is no {name}"
            used.add(name)
            labels |= exposed[name]
            asked = set(re.findall(r"(\w+)\s*[=!]~?", matchers))
            assert asked <= exposed[name], f"{where}: {name} has no {asked - exposed[name]}"
        for group in GROUPING.findall(expression):
            wanted = {label.strip() for label in group.split(",")}
            assert wanted <= labels, f"{where}: nothing has {wanted - labels}"
    assert "sluice_wait_seconds_total" in used and len(used) > 15


def test_panels_do_not_overlap() -> None:
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels()]
    assert len(set(places)) == len(places) and len({one["id"] for one in panels()}) == len(places)


def test_each_rule_is_tested_to_fire_and_to_be_silent_and_says_what_to_do() -> None:
    fires, silent = set(), set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            (fires if one["exp_alerts"] else silent).add(one["alertname"])
    names = {rule["alert"] for rule in rules()}
    assert fires == names == silent
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in rules())


@pytest.mark.parametrize("command", [["check", "rules", RULES], ["test", "rules", TESTS]], ids=["syntax", "behaviour"])
def test_promtool(command: list[Any]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=60, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout + done.stderr
