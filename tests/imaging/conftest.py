"""The fixture that runs one job in this process."""

from pathlib import Path

import pytest

from tests.imaging.workbench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
