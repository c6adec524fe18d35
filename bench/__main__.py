"""Run every benchmark in turn."""

import runpy

for name in ("codecs", "service", "bases", "load", "downloads"):
    runpy.run_module(f"bench.{name}", run_name="__main__")
