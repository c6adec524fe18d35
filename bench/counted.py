"""The service under valgrind, which lacks pidfd_open(2): workers get a descriptor that never says that they died."""

import os
import runpy
import sys

_writers: list[int] = []


def _pidfd_open(pid: int, flags: int = 0) -> int:
    reader, writer = os.pipe()
    # Open for good: a closed pipe would be readable.
    _writers.append(writer)
    return reader


os.pidfd_open = _pidfd_open
# Valgrind runs this as a script, whose directory is not that of the checkout to measure.
sys.path[0] = os.getcwd()
sys.argv = ["service", "serve"]
if __name__ == "__main__":
    runpy.run_module("service", run_name="__main__")
