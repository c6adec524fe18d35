"""A Gemini that keeps a bill: each picture that is asked for is drawn and charged, even if nobody receives it."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

from aiohttp import web

from service.emulator.responders import PendingRequest, edited
from service.emulator.wire import Json
from service.gemini.prompts import script_of
from service.server.connections import listening
from tests.helpers import QuickEmulator

# Nano-dollars a token of gemini-nano-banana-2.1, the default model, from the published price list.
PROMPT, TEXT, IMAGE = 1_500, 7_500, 30_000
LIST_PRICE = 1_120 * IMAGE


class Bank(QuickEmulator):
    """Draws swatches; `bill` has the nano-dollars of each picture, by the script that was asked for."""

    def __init__(self, delay_seconds: float = 0.0) -> None:
        super().__init__(delay_seconds, then=self.charge)
        self.bill: defaultdict[str, list[int]] = defaultdict(list)
        self._drawing: set[asyncio.Task[web.StreamResponse]] = set()

    @property
    def drawn(self) -> Counter[str]:
        """Pictures by script."""
        return Counter({script: len(charges) for script, charges in self.bill.items()})

    @property
    def total(self) -> int:
        """The whole bill in nano-dollars."""
        return sum(map(sum, self.bill.values()))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        """Answer; a client that disconnects does not stop it."""
        drawing = asyncio.create_task(super()._generate(request))
        self._drawing.add(drawing)
        drawing.add_done_callback(self._drawing.discard)
        return await asyncio.shield(drawing)

    async def charge(self, pending: PendingRequest) -> web.StreamResponse:
        thoughts = pending.number * 37 % 500

        def charged(body: Json) -> None:
            usage = body["usageMetadata"]
            usage["thoughtsTokenCount"] = thoughts
            cost = usage["promptTokenCount"] * PROMPT + thoughts * TEXT + usage["candidatesTokenCount"] * IMAGE
            self.bill[script_of(pending.received.prompt)].append(cost)

        return await edited(charged)(pending)


@contextlib.asynccontextmanager
async def open_bank(delay_seconds: float) -> AsyncIterator[tuple[Bank, str]]:
    """A bank on a loopback port, and its address."""
    bank = Bank(delay_seconds)
    async with listening(bank.create_app(), "127.0.0.1", 0) as [(host, port)]:
        yield bank, f"http://{host}:{port}"
