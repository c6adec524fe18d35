"""Run benchmarks in turn: `python -m bench` all of them, `python -m bench avif budgets` those two."""

import runpy
import sys

ALL = ("codecs", "avif", "budgets", "options", "service", "bases", "load", "downloads")

names, sys.argv[1:] = sys.argv[1:] or ALL, []
if unknown := set(names) - set(ALL):
    raise SystemExit(f"no benchmark: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
for name in names:
    runpy.run_module(f"bench.{name}", run_name="__main__")
