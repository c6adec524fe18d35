"""The old name of `python -m service.emulator`; deprecated, to be removed in the next release."""

import runpy

if __name__ == "__main__":
    runpy.run_module("service.emulator", run_name="__main__")
