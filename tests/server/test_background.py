"""Background tasks end with their context, and never unnoticed."""

import asyncio

import pytest

from service.server.background import in_background


async def test_the_task_has_ended_when_the_context_is_left() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async with in_background(work()):
        await asyncio.sleep(0)
    assert ended == [True]


async def test_an_exception_is_logged_at_once_and_does_not_leave_the_context(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ValueError("broken")

    async with in_background(work()):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "a background task has ended: ValueError('broken')" in caplog.text
