"""Fixtures of the worker tests: pools that are closed at the end, and jobs for them."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.plan import InspectJob
from tests.imaging.conftest import bench
from tests.workers.pools import Pools

__all__ = ["bench"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves space for the name of a socket: pytest's own is too long under xdist."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools()
    yield pools
    for pool in pools.made:
        await pool.close()


@pytest.fixture
def picture(tmp_path: Path) -> InspectJob:
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "a.png")
    return InspectJob(str(tmp_path / "a.png"))


@pytest.fixture
def endless(tmp_path: Path) -> InspectJob:
    """A job that never ends: its worker waits for somebody to write to a named pipe."""
    os.mkfifo(tmp_path / "pipe")
    return InspectJob(str(tmp_path / "pipe"))
