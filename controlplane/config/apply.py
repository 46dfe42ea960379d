"""Changes SQL to what a configuration file says: all changes, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import ProtectedError, RestrictedError

from controlplane.config import kinds
from controlplane.config.change import Change
from controlplane.config.document import ConfigInvalid, Mistake, Node, load
from controlplane.config.kinds.base import Kind
from controlplane.config.records import Item, Mistakes, read_list
from quotas import events
from quotas.models import ConfigVersion
from quotas.services.in_use import Use
from quotas.snapshot import resolve
from quotas.suggestions import did_you_mean

VERSION = 1


@dataclass(frozen=True)
class Section:
    """One section of the file, and what SQL has."""

    kind: Kind
    items: Mapping[str, Item]
    nodes: Mapping[str, Node]
    stored: Mapping[str, Item]
    place: Node | None
    """Whether the file has the section: only then does `--prune` remove what it does not list."""

    def pruned(self, prune: bool) -> list[str]:
        return [key for key in self.stored if key not in self.items] if prune and self.place is not None else []


def apply(
    text: str,
    *,
    actor: str,
    dry_run: bool = False,
    prune: bool = False,
    force: bool = False,
    reason: str = "configuration file",
) -> list[Change]:
    """Add and change what `text` lists; with `prune` also remove what its sections don't list.

    Raises `ConfigInvalid` with every mistake and its line; nothing is changed then. `dry_run` does all of it and
    rolls it back, so that it finds what the real run would find. What is in use is not removed, unless `force` says so:
    then the work that uses it is ended first. The audit trail gets an entry for each change.
    """
    root = load(text)
    with transaction.atomic():
        ConfigVersion.bump()  # locks the row: of two at once, the second waits and compares with the first one's result
        sections = _read(root)
        _check_references(sections, prune)
        ending = _Ending(actor, force=force and prune)
        changes = [change for section in sections for change in _write(section, ending)]
        changes += [change for section in reversed(sections) for change in _prune(section, prune, ending)]
        if ending.mistakes:
            raise ConfigInvalid(ending.mistakes)
        if dry_run or not changes:
            transaction.set_rollback(True)
        else:
            for change in changes:
                _emit_change(change, actor, reason)
    if changes and not dry_run:
        resolve.clear()
    return changes


def _read(root: Node) -> list[Section]:
    if not isinstance(root.data, dict):
        raise ConfigInvalid([root.wrong("a configuration is a mapping of sections")])
    mistakes: list[Mistake] = []
    known = {"version"} | {kind.section for kind in kinds.ALL}
    for name, node in root.data.items():
        if name not in known:
            hint = did_you_mean(name, known)
            mistakes.append(node.wrong(f"there is no such section{hint}; known are {', '.join(sorted(known))}"))
    version = root.data.get("version")
    if version is None:
        mistakes.append(root.wrong(f"needs `version: {VERSION}`"))
    elif version.data != VERSION or isinstance(version.data, bool):
        mistakes.append(version.wrong(f"this program reads version {VERSION}, not {version.data!r}"))
    sections = []
    for kind in kinds.ALL:
        node = root.data.get(kind.section)
        stored = kind.stored()
        items: dict[str, Item] = {}
        nodes: dict[str, Node] = {}
        if node is not None and node.data is not None:
            try:
                read, places = read_list(kind.record, node, kind.key)
            except Mistake as mistake:
                mistakes.append(mistake)
                continue
            except Mistakes as several:
                mistakes += several.mistakes
                continue
            for item, place in zip(read, places, strict=True):
                key = kind.key(item)
                items[key], nodes[key] = item, place
                if problem := kind.problem(item, stored.get(key)):
                    mistakes.append(_at(place, problem[0]).wrong(problem[1]))
        sections.append(Section(kind, items, nodes, stored, node))
    if mistakes:
        raise ConfigInvalid(mistakes)
    return sections


def _check_references(sections: list[Section], prune: bool) -> None:
    """Every name that is referred to must exist in the end."""
    mistakes = []
    there = {
        section.kind.section: (set(section.stored) | set(section.items)) - set(section.pruned(prune))
        for section in sections
    }
    words = {section.kind.section: section.kind.word for section in sections}
    for section in sections:
        gone = set(section.pruned(prune))
        for key, item in {**section.stored, **section.items}.items():
            if key in gone:
                continue
            for target, name, member in section.kind.references(item):
                if name in there[target]:
                    continue
                if key in section.items:
                    place = _at(section.nodes[key], member)
                    mistakes.append(place.wrong(f"there is no {words[target]} {name!r}"))
                elif section.kind.section != "overrides":  # these go with their policy
                    line = Mistake(
                        1, "", f"{words[target]} {name!r} can't be removed: {section.kind.word} {key!r} names it"
                    )
                    mistakes.append(line)
    if mistakes:
        raise ConfigInvalid(mistakes)


class _Ending:
    """What happens to work that uses a removed item: it is a mistake, or it is ended."""

    def __init__(self, actor: str, *, force: bool) -> None:
        self._actor = actor
        self._force = force
        self.mistakes: list[Mistake] = []

    def end(self, uses: Sequence[Use], place: Node, what: str, reason: str) -> tuple[str, ...]:
        """End the uses; returns what was ended, in words. Without ending them, `what` can't be done."""
        kept = [use for use in uses if use.end is None or not self._force]
        if kept:
            by = ", ".join(use.what for use in kept if use.what)
            ends = ", ".join(use.ends_as for use in kept)
            hint = "" if any(use.end is None for use in kept) else f"; `--prune --force` {ends}"
            self.mistakes.append(place.wrong(f"{what}: in use by {by}{hint}"))
            return ()
        for use in uses:
            if use.end is not None:
                use.end(self._actor, reason)
        return tuple(f"{use.what}: {use.ends_as}" for use in uses if use.what)


def _write(section: Section, ending: _Ending) -> list[Change]:
    kind, changes = section.kind, []
    for key, item in section.items.items():
        before = section.stored.get(key)
        if before is None:
            shown = kind.shown(item)
            changes.append(Change("create", kind.word, key, {name: (None, value) for name, value in shown.items()}))
        elif not kind.same(item, before):
            ends = ending.end(
                kind.loses(item, before), section.nodes[key], f"{kind.word} {key!r} can't lose its pool",
                f"the {kind.word} {key} lost its pool",
            )  # fmt: skip
            changes.append(Change("change", kind.word, key, kind.differences(item, before), ends))
        else:
            continue
        kind.save(item, before)
    return changes


def _prune(section: Section, prune: bool, ending: _Ending) -> list[Change]:
    kind, changes = section.kind, []
    for key in section.pruned(prune):
        item = section.stored[key]
        place = section.place or Node(1, kind.section, None)
        uses = [use for use in kind.uses(item) if not use.named]
        ends = ending.end(uses, place, f"{kind.word} {key!r} can't be removed", f"the {kind.word} {key} was removed")
        changes.append(
            Change("remove", kind.word, key, {name: (value, None) for name, value in kind.shown(item).items()}, ends)
        )
        if uses and not ends:
            continue  # a mistake
        try:
            kind.remove(item)
        except (ProtectedError, RestrictedError) as error:
            users = sorted({row._meta.verbose_name for row in _holders(error)})
            raise ConfigInvalid(
                [
                    Mistake(
                        1,
                        kind.section,
                        f"{kind.word} {key!r} can't be removed: {', '.join(map(str, users))} refer to it",
                    )
                ]
            ) from None
    return changes


def _holders(error: ProtectedError | RestrictedError) -> set:  # type: ignore[type-arg]
    return error.protected_objects if isinstance(error, ProtectedError) else error.restricted_objects


def _emit_change(change: Change, actor: str, reason: str) -> None:
    before = {name: pair[0] for name, pair in change.members.items()} if change.verb != "create" else None
    after = {name: pair[1] for name, pair in change.members.items()} if change.verb != "remove" else None
    word = change.word.replace(" ", "_")
    project = change.key if word == "project" else str((after or before or {}).get("project") or "")
    events.emit(
        events.OperatorActed(
            actor, f"{word}.{change.verb}", f"{word}:{change.key}", before, after, reason, project=project
        )
    )


def _at(node: Node, member: str) -> Node:
    found = node.data.get(member) if isinstance(node.data, dict) else None
    return found if isinstance(found, Node) else node
