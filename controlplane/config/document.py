"""A YAML text as a tree whose every value knows its line and its path."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import yaml

from quotas.suggestions import did_you_mean

MAX_NODES = 500_000
"""Values in one file; aliases of aliases would otherwise grow without end."""
MAX_DEPTH = 30
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Mistake(Exception):
    """What is wrong, and where."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}" + (f", {self.path}" if self.path else "")
        return f"{place}: {self.message}"


class ConfigInvalid(Exception):
    """The configuration has mistakes; nothing was changed."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: mistake.line)
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True)
class Node:
    """`data` is a scalar, a list of nodes or a dict of nodes."""

    line: int
    path: str
    data: Any

    def wrong(self, message: str) -> Mistake:
        return Mistake(self.line, self.path, message)

    def unknown(self, name: str, known: Collection[str]) -> Mistake:
        """The mistake of a member `name` that is none of `known`."""
        return self.wrong(f"is not known here{did_you_mean(name, known)}; known are {', '.join(sorted(known))}")

    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.data, dict):
            return {name: node.plain() for name, node in self.data.items()}
        if isinstance(self.data, list):
            return [node.plain() for node in self.data]
        return self.data


def load(text: str) -> Node:
    """The tree of one YAML document. Raises `ConfigInvalid`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigInvalid([Mistake(line, "", f"not YAML: {error.problem or error.context}")]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigInvalid([Mistake(1, "", f"not YAML: {str(error).splitlines()[0]}")]) from None
    if root is None:
        return Node(1, "", {})
    try:
        return _Reader().read(root, "", 0)
    except Mistake as mistake:
        raise ConfigInvalid([mistake]) from None


class _Reader:
    def __init__(self) -> None:
        self.count = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Node:
        line = node.start_mark.line + 1
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise Mistake(line, path, "the document is too large or too deep")
        if isinstance(node, yaml.MappingNode):
            members: dict[str, Node] = {}
            for name_node, value in node.value:
                name = name_node.value
                if not isinstance(name, str):
                    raise Mistake(name_node.start_mark.line + 1, path, "a member's name must be text")
                inner = f"{path}.{name}" if path else name
                if name in members:
                    raise Mistake(name_node.start_mark.line + 1, inner, "stands there twice")
                members[name] = self.read(value, inner, depth + 1)
            return Node(line, path, members)
        if isinstance(node, yaml.SequenceNode):
            return Node(line, path, [self.read(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)])
        return Node(line, path, self.scalar(node, line, path))

    def scalar(self, node: yaml.Node, line: int, path: str) -> Any:
        kind, text = node.tag.rpartition(":")[2], node.value
        if "\0" in text:
            raise Mistake(line, path, "must not contain the character NUL")
        match kind:
            case "null":
                return None
            case "bool":
                return yaml.constructor.SafeConstructor.bool_values[text.lower()]
            case "int":
                # YAML 1.1 reads 010 as 8, 1:30 as 90 and 1_0 as 10: here they are what they look like, text.
                return int(text) if _WHOLE.fullmatch(text) and len(text) <= 400 else text
            case "float":
                return self.number(text)
            case "str" | "timestamp":
                return text
        raise Mistake(line, path, f"the tag {node.tag!r} is not known")

    @staticmethod
    def number(text: str) -> Any:
        try:
            return float({".inf": "inf", ".nan": "nan"}.get(text.lower().lstrip("+-"), text.replace("_", "?")))
        except ValueError:
            return text


T = TypeVar("T")
Reader: TypeAlias = Callable[[Node], T]
