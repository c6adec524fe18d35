"""Owner locks: each ends with its process, and not before."""

import os
import signal
import subprocess
import sys

from service.ledger.ledger import Ledger, LedgerAccess, open_ledger
from service.ledger.steps import CallId
from tests.helpers import until_async
from tests.ledger.conftest import Open
from tests.ledger.test_steps import new, states

CHILD = """
import asyncio, sys
from pathlib import Path
from service.ledger.ledger import LedgerAccess, open_ledger
from service.ledger.steps import CallId, NewRequest, Rules

async def main():
    access = LedgerAccess(Path(sys.argv[1]), Rules(1, None), sys.argv[2])
    async with open_ledger(access) as ledger:
        await ledger.open(NewRequest(sys.argv[3], "-", "r", "f", "sync", "gemini", "{}", None, "m", "1K", ["a"], 1))
        await ledger.send(CallId(sys.argv[3], 1))
        print(ledger.owner, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_requests_of_a_killed_process_are_taken_over(ledger: Ledger, access: LedgerAccess) -> None:
    request = new()
    arguments = [sys.executable, "-c", CHILD, str(access.directory), access.url, request.id]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        owner = child.stdout.readline().strip()
        assert len(owner) == 32
        assert await ledger.dead_owners() == []
        os.kill(child.pid, signal.SIGKILL)
    # A database learns of it from the closed connection.
    await until_async(ledger.dead_owners)
    [(row, [call])] = await ledger.take_over(owner)
    assert (row.id, row.owner, call.state, call.owner) == (request.id, ledger.owner, "sending", ledger.owner)
    await ledger.bury(owner)
    assert await ledger.dead_owners() == []
    assert await ledger.lose(CallId(request.id, 1), "{}")
    assert await states(ledger, request) == ["unknown"]


async def test_a_living_owner_is_left_alone(ledger: Ledger, another: Open) -> None:
    other = await another()
    await other.open(new())
    assert await ledger.dead_owners() == []
    assert await other.dead_owners() == []


async def test_an_owner_that_ends_with_open_requests_leaves_them_to_others(access: LedgerAccess, another: Open) -> None:
    async with open_ledger(access) as first:
        request = new()
        await first.open(request)
    second = await another()
    await until_async(second.dead_owners)
    assert await second.dead_owners() == [first.owner]
    async with open_ledger(access) as idle:
        pass
    assert idle.owner not in await second.dead_owners()
