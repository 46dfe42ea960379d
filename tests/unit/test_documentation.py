"""What documents and docstrings name exists: modules and their members, files, commands, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.core.management import get_commands

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("quotas", "queues", "controlplane", "tests", "bench")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "controlplane/presets").glob("*.yaml")),
]
SOURCES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts
]
DOTTED = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(.*?\))?`")
FILES = re.compile(rf"`((?:{'|'.join((*PACKAGES, 'docs', 'deploy', 'examples'))})/[\w./-]+)`")
COMMANDS = re.compile(r"(?:manage\.py|\bsluice) +([a-z_]+)\b")
DIALECT = re.compile(
    r"""\b(
        told|tells?|telling                             # report, say, publish
        |hears?|heard|hearing                           # receive, listen
        |lends?|lent|lending                            # acquire, reserve
        |held|hold[s]?\s(?:back|up)                      # reserved, delayed, kept
        |looks?\s(?:after|around)|looking\s(?:after|around)  # supervise, refresh
        |let(?:s|ting)?\s(?:go|finish)                   # release, wait for
        |put(?:s|ting)?\sback|giv(?:es?|en|ing)\sback|gave\sback|hand(?:s|ed|ing)?\s(?:back|in)  # requeue, return
        |go(?:es)?\son|went\son|going\son                # continue
        |couriers?|bookkeep\w*|mourn\w*|buried|bury\w*|breathe\w*
        |what\swaits|who\swaits|stands?\sin            # waiting jobs, callers; queue
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Words that the documentation does not use of data and programs; `code` and code blocks are exempt."""
DIALECT_IN_CODE = re.compile(
    r"""(?:\b|_)(
        told|tells?|telling
        |hears?|heard|hearing|ears|deaf
        |lends?|lent|lending|borrow\w*
        |looks?[ _]after|looking[ _]after|let(?:s|ting)?[ _]go|held[ _]against|stand(?:s|ing)?[ _]in[ _]line
        |couriers?|bookkeep\w*|mourn\w*|buried|bury\w*|breathe\w*
        |waved?[ _]through|crew(?:[ _]\w+)?|put[ _]back|places?[ _]free|(?:wait[ _]for|has)[ _]place|hopeless|plainly|spoken
    )(?:\b|_)""",
    re.IGNORECASE | re.VERBOSE,
)
"""Words that names, comments, docstrings and messages do not use: they have a term in the field."""
ALLOWED_IN_CODE = {
    "tests/unit/test_documentation.py": re.compile(r"."),  # the words themselves
    "tests/unit/quotas/upstream/test_response.py": re.compile(r"\.tell\(\)"),  # the position in a file
}
"""Lines that may use one of these words, by file."""
DIALECT_IN_PROSE = re.compile(
    r"""\b(
        whoever|what\swaits|who\swaits                        # waiting jobs, callers
        |giv(?:e|es|en|ing)\s(?:\w+\s){0,2}back|gave\s(?:\w+\s){0,2}back  # return, release, refund
        |(?:hold[s]?|holding|held)\s(?:up|back|against)       # delay, block, check
        |held\sby|(?:is|are|was|were|be|been)\s(?:still\s)?held(?!\.\w)  # blocked, reserved, locked
        |holds?\s(?:for|within|from|at\sonce)\b(?!\s*\*)      # apply
        |holds?\s(?:no|a|the|only|secrets?|tokens?)\s?(?:secret|token|credential|password|key|address)s?  # contain
        |go(?:es)?\son|went\son|going\son                    # continue
        |lets?\s(?:it|them|all|only|one|an?|calls?|requests?|jobs?|\s|of|at|time){1,9}\sthrough  # admit
        |(?:is|are|was|were|be|been|being)\s(?:not\s|only\s)?asked  # called, read, requested
        |ask(?:s|ed|ing)?\s(?:SQL|Redis|the\s(?:engine|server|limiter|database|kernel|cluster|pool|script))  # read, call
        |under\sway|on\s(?:its|their)\sway                   # in progress, in flight
        |(?:back|waits?|stands?)\sin\sline                    # queue
        |free\splaces?|places?\s(?:is|are)\sfree             # slots
        |(?:Redis|SQL|server|limiter|database)\s(?:is|was)\saway  # unavailable
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Phrases that comments, docstrings, messages and pages do not use of data and programs."""
NOBODY = re.compile(r"\bnobody(?:'s)?\b", re.IGNORECASE)
"""In the product, its pages and benches: no caller, no process, no user. Tests use it as a name that does not exist."""
ALLOWED_IN_PROSE = {
    "tests/unit/test_documentation.py": re.compile(r"."),  # the phrases themselves
    "queues/models/worker.py": re.compile(r"help_text="),  # stored in migrations
    "tests/support/mail.py": re.compile(r"354 go on"),  # what an SMTP server answers
}
"""Lines that may use one of these phrases, by file."""
TEXTS = [
    path
    for package in (*PACKAGES, "examples", "deploy")
    for path in sorted((ROOT / package).rglob("*"))
    if path.suffix in {".py", ".lua", ".html", ".js", ".css", ".yaml", ".yml", ".toml", ".sh"}
]
CODE = re.compile(r"^```.*?^```|`[^`]*`", re.MULTILINE | re.DOTALL)
LINKS = re.compile(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)")
SECTION_LINKS = re.compile(r"\]\(([^)#:\s]*)#([\w-]+)\)")
HEADINGS = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)


@cache
def members(path: Path) -> frozenset[str]:
    """Names bound at the top of a module, and `Class.member` for what its classes define."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)  # a package's face may load its members by name
    return frozenset(names)


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or a member of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        module = base.with_suffix(".py") if base.with_suffix(".py").exists() else base / "__init__.py"
        if module.exists():
            return all(part in members(module) for part in parts[length:])
        if base.is_dir():
            return length == len(parts)
    return False


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_only_what_exists(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in DOTTED.findall(text) if not exists(name)]
    missing += [name for name in FILES.findall(text) if not (ROOT / name).exists()]
    missing += [name for name in LINKS.findall(text) if page.suffix == ".md" and not (page.parent / name).exists()]
    commands = get_commands()
    missing += [name for name in COMMANDS.findall(text) if name not in commands and name not in ("commands",)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_is_in_plain_words(page: Path) -> None:
    text = CODE.sub("", page.read_text())
    found = [match.group() for words in (DIALECT, DIALECT_IN_PROSE, NOBODY) for match in words.finditer(text)]
    assert found == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: lower case, no punctuation, hyphens for blanks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADINGS.findall(text)}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.suffix == ".md"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_page_links_only_to_sections_that_exist(page: Path) -> None:
    linked = SECTION_LINKS.findall(page.read_text())
    targets = [((page.parent / name) if name else page, anchor) for name, anchor in linked]
    assert [f"{target.name}#{anchor}" for target, anchor in targets if anchor not in anchors(target)] == []


def test_docstrings_name_only_what_exists() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for text in docstrings(path)
        for name in [*DOTTED.findall(text), *FILES.findall(text)]
        if not (exists(name) if "/" not in name else (ROOT / name).exists())
    ]
    assert missing == []


def test_code_is_in_plain_words() -> None:
    assert len(TEXTS) > 500
    found = []
    for path in TEXTS:
        allowed = ALLOWED_IN_CODE.get(str(path.relative_to(ROOT)))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if DIALECT_IN_CODE.search(line) and not (allowed and allowed.search(line)):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_prose_in_code_is_plain() -> None:
    found = []
    for path in TEXTS:
        name = str(path.relative_to(ROOT))
        if "migrations" in path.parts:
            continue  # what was stored then
        allowed = ALLOWED_IN_PROSE.get(name)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            dialect = DIALECT_IN_PROSE.search(line) or (not name.startswith("tests/") and NOBODY.search(line))
            if dialect and not (allowed and allowed.search(line)):
                found.append(f"{name}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "# whoever dies in between", "what waits for the place", "units are given back", "gives back what was not used",
        "a cause that holds back jobs", "accounts held by their leases", "the slot is still held", "it holds for jobs only",
        "it holds within a second", "the address holds no token", "a job goes on", "lets one call through",
        "lets a request through", "the server is asked", "asks SQL", "calls under way", "one event on its way", "goes back in line",
        "as far as places are free", "while Redis is away",
    ],
)  # fmt: skip
def test_the_check_finds_phrases(line: str) -> None:
    assert DIALECT_IN_PROSE.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "Stage.HELD", '"held"', "lease.give_back()", "hold at", "Hold these priorities", "Leave blank to never hold.",
        "def holds_for(limit):", "Look at it in the admin", "the only place", "Ask an administrator", "one line each",
        "in line with", "go once", "through the engine", "lets each project call the provider through the gateway",
    ],
)  # fmt: skip
def test_the_check_leaves_the_fields_own_phrases_alone(line: str) -> None:
    assert not DIALECT_IN_PROSE.search(line)


@pytest.mark.parametrize(
    "line",
    ["def tell_all():", "    self._lent = 1", "# who hears of it", "test_denials_are_told_twice", "_look_after(x)"],
)
def test_the_check_finds_words_in_names_and_comments(line: str) -> None:
    assert DIALECT_IN_CODE.search(line)


@pytest.mark.parametrize("line", ["hearts, ear_tag", "retell", "a blended rate", "early years"])
def test_the_check_leaves_other_words_alone(line: str) -> None:
    assert not DIALECT_IN_CODE.search(line)


def test_the_check_finds_what_is_missing() -> None:
    assert exists("quotas.limits.check") and exists("quotas.engine")
    assert not exists("quotas.limits.chekc") and not exists("queues.worker.no_such_module")
