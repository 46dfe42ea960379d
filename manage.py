#!/usr/bin/env python3
"""Django's command line for Sluice."""

import os
import sys
from pathlib import Path

from controlplane import parent_death


def take_data_dir(argv: list[str]) -> list[str]:
    """Every command works on the instance of `--data-dir`: settings are read before a command parses its options."""
    rest = []
    words = iter(argv)
    for word in words:
        if word == "--data-dir":
            os.environ["SLUICE_DATA_DIR"] = next(words, "")
        elif word.startswith("--data-dir="):
            os.environ["SLUICE_DATA_DIR"] = word.partition("=")[2]
        else:
            rest.append(word)
    return rest


def make_secrets() -> None:
    """`up` makes the instance's own keys, and settings read them: so it does that first."""
    from controlplane.instance import Instance

    Instance.from_environment(Path(__file__).resolve().parent).create_secrets()


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    parent_death.hand_down()
    argv = take_data_dir(sys.argv)
    if argv[1:2] == ["up"] and not {"-h", "--help"} & set(argv):
        make_secrets()
    from django.core.management import execute_from_command_line

    execute_from_command_line(argv)


if __name__ == "__main__":
    main()
