#!/usr/bin/env python3
"""Django's command line for Sluice, in a checkout of the project."""

from controlplane.cli import main

if __name__ == "__main__":
    main()
