"""The bench that worker tests work at."""

from tests.imaging.conftest import bench

__all__ = ["bench"]
