import asyncio
import logging
import threading

import pytest

from service import scheduler
from service.metrics import Metrics
from service.retention import Sweep
from service.scheduler import Sweeper
from tests.conftest import MakeSettings
from tests.helpers import until


async def test_a_stop_during_a_sweep_waits_for_it_and_is_no_fault(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(*args: object) -> Sweep:
        begun.set()
        go_on.wait()
        ended.set()
        return Sweep()

    monkeypatch.setattr(scheduler, "sweep_area", slow)
    sweeper = Sweeper(make_settings(), Metrics())
    sweeper.start()
    await until(begun.is_set)
    closing = asyncio.create_task(sweeper.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    assert ended.is_set()
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_the_end_of_a_sweep_is_told(make_settings: MakeSettings) -> None:
    told = asyncio.Event()
    sweeper = Sweeper(make_settings(), Metrics(), told.set)
    sweeper.start()
    async with asyncio.timeout(30):
        await told.wait()
    await sweeper.close()
