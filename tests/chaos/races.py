"""Requests that race for the budget of the day, and for one idempotency key."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.audit import Report, audited
from tests.chaos.bank import Bank, open_bank
from tests.chaos.clients import Answer, get, post, settled, thumbnails_form
from tests.chaos.process import Service
from tests.chaos.runs import Progress, silent
from tests.helpers import until

COUNT = 3


async def race_for_budget(
    directory: Path, rounds: int, requests: int, budget: float, choose: random.Random, progress: Progress = silent
) -> Report:
    """Race that many requests, kill the server among them, start again; so many rounds, on one budget."""
    async with AsyncExitStack() as stack:
        bank, url = await stack.enter_async_context(open_bank(0.3))
        service = Service(directory / "storage", url, settings={"BUDGET_USD_PER_DAY": f"{budget:.6f}"})
        stack.push_async_callback(service.stop)
        await service.start()
        days, answers, over = {_today()}, Counter[int](), 0
        for number in range(rounds):
            answers += await _race(service, number * requests, requests, choose)
            await service.start()
            over += not await _within(service, budget)
            days.add(_today())
            progress(f"round {number + 1} of {rounds}, {bank.total / 1e9:.6f} of {budget:.2f} USD")
        # Once no dead process holds a reservation, what is left of the budget can be spent.
        await settled(service)
        answers += Counter(each.status for each in await _posted(service, -requests, requests) if each)
        _, findings = await audited(service, bank)
        over += not await _within(service, budget) or bank.total > budget * 1e9 * len(days)
        faults = {**findings.faults, **({"over_the_budget": over} if over else {})}
        statuses = ", ".join(f"{count} times {status}" for status, count in sorted(answers.items()))
        return Report(faults, f"bill {bank.total / 1e9:.6f} of {budget:.2f} USD; answers: {statuses}")


async def _race(service: Service, first: int, requests: int, choose: random.Random) -> Counter[int]:
    racing = asyncio.create_task(_posted(service, first, requests))
    await asyncio.sleep(choose.uniform(0.3, 2.0))
    await service.kill()
    return Counter(each.status for each in await racing if each)


async def _posted(service: Service, first: int, requests: int) -> Sequence[Answer | None]:
    """Every other request has a key, so that what was planned is sent after a kill."""
    numbers = range(first, first + requests)
    headers = [{"Idempotency-Key": f"key-{number}"} if number % 2 else {} for number in numbers]
    posts = (
        post(service, thumbnails_form(number, count=1 + number % 2), header)
        for number, header in zip(numbers, headers, strict=True)
    )
    return await asyncio.gather(*posts)


async def _within(service: Service, budget: float) -> bool:
    now = (await get(f"{service.url}/api/usage"))["budget"]
    return bool(now["spent_usd"] + now["reserved_usd"] + now["possibly_billed_usd"] <= budget + 1e-6)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


async def race_for_key(directory: Path, posts: int, progress: Progress = silent) -> Report:
    """POSTs at once with one key: to one server, to one that is killed meanwhile, to two servers on one storage."""
    async with AsyncExitStack() as stack:
        bank, url = await stack.enter_async_context(open_bank(1.0))
        one, other = (Service(directory / "storage", url) for _ in range(2))
        for service in (one, other):
            stack.push_async_callback(service.stop)
            await service.start()
        faults: Counter[str] = Counter()
        for number, servers in enumerate(([one], [one, other])):
            faults += _judge(bank, number, await _at_once(servers, number, posts))
            progress(f"{posts} POSTs to {len(servers)} at once: {bank.drawn[_script(number)]} calls for {COUNT}")
        for number, servers in enumerate(([one], [one, other]), 2):
            faults += _judge(bank, number, await _with_a_kill(bank, servers, number, posts))
            progress(f"{posts} to {len(servers)}, one killed: {bank.drawn[_script(number)]} calls for {COUNT}")
        _, findings = await audited(one, bank)
        seen = f"{bank.drawn.total()} calls for 4 keys of {COUNT}"
        return Report({**findings.faults, **faults}, seen)


def _script(number: int) -> str:
    return f"script {number}"


async def _at_once(servers: Sequence[Service], number: int, posts: int) -> list[Answer | None]:
    body, headers = thumbnails_form(number, count=COUNT), {"Idempotency-Key": f"key-{number}"}
    return await asyncio.gather(*(post(servers[each % len(servers)], body, headers) for each in range(posts)))


async def _with_a_kill(bank: Bank, servers: Sequence[Service], number: int, posts: int) -> list[Answer | None]:
    """Kill the first server once all calls are out, start it again, and ask everyone once more."""
    calls = len(bank.received) + COUNT
    racing = asyncio.create_task(_at_once(servers, number, posts))
    await until(lambda: len(bank.received) >= calls, 60)
    await servers[0].kill()
    await servers[0].start()
    await racing
    await settled(servers[0])
    return await _at_once(servers, number, posts)


def _judge(bank: Bank, number: int, answers: Sequence[Answer | None]) -> Counter[str]:
    """All answers must be alike, and exactly COUNT calls made."""
    told = {_essence(answer) for answer in answers}
    return Counter(
        calls_too_many_or_few=abs(bank.drawn[_script(number)] - COUNT),
        unanswered=answers.count(None),
        unlike_answers=len(told) - 1,
    )


def _essence(answer: Answer | None) -> str:
    """What a replay must repeat: the variations of a success, the errors of a failure."""
    if answer is None:
        return ""
    kept = {name: answer.json.get(name) for name in ("code", "variations", "errors")}
    return f"{answer.status} {json.dumps(kept, sort_keys=True)}"
