#!/usr/bin/env python3
"""Django's command line for Sluice."""

import os
import sys


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


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    argv = take_data_dir(sys.argv)
    from django.core.management import execute_from_command_line

    execute_from_command_line(argv)


if __name__ == "__main__":
    main()
