"""Run benchmarks in turn: `python -m bench` all of them, `python -m bench avif budgets` those two."""

import sys
from importlib import import_module

ALL = ("codecs", "avif", "budgets", "animation", "options", "service", "bases", "load", "downloads")


def main() -> None:
    names, sys.argv[1:] = sys.argv[1:] or ALL, []
    if unknown := set(names) - set(ALL):
        raise SystemExit(f"no benchmark: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    for name in names:
        # Not as a script: functions of __main__ cannot be sent to other processes.
        import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
