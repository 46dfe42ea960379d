"""The names that the audit trail gives to those who act."""

from __future__ import annotations

import getpass


def command_line() -> str:
    """The user who runs a command: `cli:<user of the operating system>`."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user id without a name
        return "cli"
