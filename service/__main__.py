"""`python -m service` and `image-export`: handles stop signals first, since the imports take most of a second."""

import sys

from service.signals import exit_on_stop_signals


def main() -> None:
    # A `serve` that is stopped before it serves did what it was asked; any other command did nothing.
    exit_on_stop_signals(0 if sys.argv[1:2] == ["serve"] else 1)

    from service import cli

    cli.main()


if __name__ == "__main__":
    main()
