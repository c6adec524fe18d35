"""The order of submissions with one body whose requests are not written yet."""

import asyncio

from service.callers import Caller
from service.jobs.beginnings import Beginnings
from service.jobs.job import GENERATIONS, Submission

FIRST = Submission(Caller("-"), fingerprint="f", route=GENERATIONS)
RETRY = Submission(Caller("-"), fingerprint="f", route=GENERATIONS, retries=True)
OTHER = Submission(Caller("-"), fingerprint="g", route=GENERATIONS, retries=True)


async def test_a_retry_waits_for_earlier_submissions_of_its_body_and_for_no_others() -> None:
    beginnings, order = Beginnings(), list[str]()
    written = asyncio.Event()

    async def begin(name: str, submission: Submission, wait: bool = False) -> None:
        async with beginnings.beginning(submission):
            if wait:
                await written.wait()
            order.append(name)

    tasks = [asyncio.create_task(begin("first", FIRST, wait=True))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(begin(*each)) for each in (("retry", RETRY), ("again", RETRY))]
    await asyncio.gather(begin("equal", FIRST), begin("other", OTHER))
    assert sorted(order) == ["equal", "other"]
    written.set()
    await asyncio.gather(*tasks)
    assert order[2:] == ["first", "retry", "again"]


async def test_a_retry_goes_on_when_what_it_waits_for_is_given_up() -> None:
    beginnings, begun = Beginnings(), asyncio.Event()

    async def stuck() -> None:
        async with beginnings.beginning(FIRST):
            begun.set()
            await asyncio.Event().wait()

    first = asyncio.create_task(stuck())
    await begun.wait()
    asyncio.get_running_loop().call_soon(first.cancel)
    async with asyncio.timeout(20), beginnings.beginning(RETRY):
        assert first.done() or first.cancelling()
