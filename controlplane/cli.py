"""The command line: `manage.py COMMAND` in a checkout, `sluice COMMAND` where the wheel is installed."""

from __future__ import annotations

import os
import sys
from importlib import metadata

from controlplane import parent_death, spared_packages
from controlplane.instance import Instance


def main(argv: list[str] | None = None) -> None:
    """Run one management command. `argv` has the program's name first, as `sys.argv` has."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    parent_death.hand_down()
    words = take_data_dir(sys.argv if argv is None else argv)
    if words[1:] == ["--version"]:
        print(version())
        return
    if words[1:2] == ["up"] and not {"-h", "--help"} & set(words):
        # `up` creates the instance's own keys, and the settings read them: this must come first.
        Instance.from_environment().create_secrets()
    spared_packages.load_libraries()
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        settings.INSTALLED_APPS  # noqa: B018  (reads the settings, and with them the environment)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    execute_from_command_line(words)


def console_script() -> None:
    """Entry point of `sluice`. Task modules may be in the working directory, as with `python manage.py`."""
    sys.path.insert(0, os.getcwd())
    main()


def take_data_dir(argv: list[str]) -> list[str]:
    """`argv` without `--data-dir DIR`, which sets SLUICE_DATA_DIR: settings are read before options are parsed."""
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


def version() -> str:
    """`sluice 0.2.0`, from the installed wheel or, in a checkout, from `pyproject.toml`."""
    from controlplane import __version__

    return f"sluice {__version__} (Django {metadata.version('django')}, Python {sys.version.split()[0]})"
