"""`python -m controlplane.simulator`: the simulator without Django."""

import argparse
import sys

from controlplane.simulator import options, server


def main() -> int:
    """Run until stopped; 2 for bad flags, 1 if the port is taken."""
    parser = argparse.ArgumentParser(prog="controlplane.simulator", description="A local provider with real limits.")
    options.add_arguments(parser)
    given = vars(parser.parse_args())
    try:
        settings = options.settings_from(given)
    except ValueError as error:
        parser.error(str(error))
    try:
        if given["die_with_parent"]:
            server.die_with_parent()
        server.run(settings, given["host"], given["port"], lambda url: print(f"ready: {url}", flush=True))
    except OSError as error:
        print(f"cannot listen on {given['host']}:{given['port']}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
