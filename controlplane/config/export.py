"""Writes SQL as a configuration file; applying it changes nothing. It contains no credentials."""

from __future__ import annotations

from typing import Any

import yaml

from controlplane.config import kinds
from controlplane.config.apply import VERSION


class _Dumper(yaml.SafeDumper):
    """Sections in block style, one item after the other; values inside an item's members in flow style."""


class _Flow:
    def __init__(self, value: Any) -> None:
        self.value = value


def _flow(dumper: yaml.SafeDumper, flow: _Flow) -> yaml.Node:
    if isinstance(flow.value, dict):
        return dumper.represent_mapping("tag:yaml.org,2002:map", flow.value, flow_style=True)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", flow.value, flow_style=True)


def _no_alias(dumper: yaml.SafeDumper, data: Any) -> bool:
    return True


_Dumper.add_representer(_Flow, _flow)
_Dumper.ignore_aliases = _no_alias  # type: ignore[method-assign, assignment]


def export() -> str:
    """The YAML text."""
    document: dict[str, Any] = {"version": VERSION}
    for kind in kinds.ALL:
        items = [kind.shown(item) for item in kind.stored().values()]
        if items:
            document[kind.section] = [_laid_out(item) for item in items]
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)


def _laid_out(item: dict[str, Any]) -> dict[str, Any]:
    def laid(value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
            return [_Flow(inner) for inner in value]
        return _Flow(value) if isinstance(value, dict | list) else value

    return {name: laid(value) for name, value in item.items()}
