"""Gemini's REST API as an aiohttp app that draws pictures locally; run by `python -m service.emulator`."""

import asyncio
import os
import re
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from service.emulator import wire
from service.emulator.drawing import draw
from service.emulator.faults import FAULTS
from service.emulator.responders import PendingRequest, Responder, json_response, one_picture
from service.gemini import models
from service.gemini.prompts import script_of

# The largest request: all reference pictures in base64, and 1 MiB for the text.
MAX_BODY_BYTES = wire.MAX_REFERENCES * wire.MAX_REFERENCE_BYTES * 4 // 3 + 1024 * 1024

Fault = str | Responder | None
_PictureKey = tuple[str, tuple[int, int], str | None]


class Emulator:
    """Draws a picture for each request, or plays a fault, and records the requests.

    `faults` apply to the first requests in order, `then` to all later ones; each is a name in FAULTS, a Responder, or
    None for a normal reply. Equal requests get `variants` different pictures before they repeat; an equal `seed` gives
    the same ones.
    """

    def __init__(
        self,
        delay_seconds: float = 0.0,
        faults: Iterable[Fault] = (),
        then: Fault = None,
        api_key: str | None = None,
        seed: int = 0,
        variants: int = 16,
    ) -> None:
        self.delay_seconds = delay_seconds
        self.requests = 0
        self.in_flight = 0
        self.peak = 0
        self.received: deque[wire.GenerateRequest] = deque(maxlen=2_000)
        self._faults = [_responder(fault) for fault in faults]
        self._then = _responder(then)
        self._api_key = api_key
        self._gallery = _Gallery(seed, variants)
        self._closing = asyncio.Event()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Emulator":
        """Reads EMULATOR_DELAY_SECONDS (default 1) and EMULATOR_FAULTS, such as `blocked_safety,ok,*drop`.

        A last fault with the prefix `*` applies to all later requests. Raises ValueError, which names the variable.
        """
        names = [name.strip() for name in environ.get("EMULATOR_FAULTS", "").split(",")]
        then = names.pop()[1:] if names[-1].startswith("*") else None
        faults = [None if name in ("", "ok") else name for name in names]
        delay = environ.get("EMULATOR_DELAY_SECONDS") or "1"
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", delay, re.ASCII):
            raise ValueError(f"EMULATOR_DELAY_SECONDS={delay}: a number of seconds is allowed, such as 0.5")
        try:
            return cls(float(delay), faults, then)
        except ValueError as exc:
            raise ValueError(f"EMULATOR_FAULTS: {exc}") from None

    def create_app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/{version}/models/{model}:generateContent", self._generate),
                web.get("/emulator/stats", self._get_stats),
            ]
        )
        app.on_shutdown.append(self._close)
        app.cleanup_ctx.append(self._gallery.opened)
        return app

    def stats(self) -> wire.Json:
        return {
            "requests": self.requests,
            "in_flight": self.in_flight,
            "peak": self.peak,
            "received": [request.summary() for request in self.received],
        }

    async def _close(self, _: web.Application) -> None:
        self._closing.set()

    async def _get_stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.stats())

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        number = self.requests
        try:
            received = await self._read(request)
            self.received.append(received.without_data())
            pending = PendingRequest(request, received, number, lambda: self._gallery.picture(received), self._closing)
            await self._wait()
            return await self._fault(number)(pending)
        except wire.ApiError as error:
            return json_response(wire.dump(error.body), error.code)
        finally:
            self.in_flight -= 1

    async def _read(self, request: web.Request) -> wire.GenerateRequest:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as exc:
            raise wire.ApiError(400, "Request payload size exceeds the limit.") from exc
        self._check_key(request.headers.get("x-goog-api-key") or request.query.get("key"))
        version, model = request.match_info["version"], request.match_info["model"]
        if models.is_retired(model):
            raise wire.ApiError(404, f"models/{model} is not found for API version {version}.")
        headers = {name.lower(): value for name, value in request.headers.items()}
        return await asyncio.to_thread(wire.read, version, model, headers, body)

    def _check_key(self, key: str | None) -> None:
        if not key:
            raise wire.ApiError(403, "Method doesn't allow unregistered callers. Please use API Key.")
        if self._api_key and key != self._api_key:
            info = wire.detail("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com")
            raise wire.ApiError(400, "API key not valid. Please pass a valid API key.", [info])

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self.delay_seconds)

    def _fault(self, number: int) -> Responder:
        return self._faults[number - 1] if number <= len(self._faults) else self._then


def _responder(fault: Fault) -> Responder:
    if fault is None:
        return one_picture
    if not isinstance(fault, str):
        return fault
    if fault not in FAULTS:
        raise ValueError(f"no fault is called {fault!r}; known are {', '.join(FAULTS)}")
    return FAULTS[fault]


class _Gallery:
    """A cache of drawn pictures: each is drawn once, in a thread, however many requests wait for it."""

    SIZE = 32

    def __init__(self, seed: int, variants: int) -> None:
        self._seed = seed
        self._variants = variants
        self._requested: OrderedDict[_PictureKey, int] = OrderedDict()
        self._pictures: OrderedDict[tuple[_PictureKey, int], asyncio.Future[bytes]] = OrderedDict()
        self._threads = ThreadPoolExecutor(thread_name_prefix="draw", max_workers=os.cpu_count())

    @asynccontextmanager
    async def opened(self, _: web.Application) -> AsyncIterator[None]:
        yield
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def picture(self, received: wire.GenerateRequest) -> bytes:
        """The next variant of the requested picture, as PNG."""
        reference = received.references[0] if received.references else None
        script = script_of(received.prompt)
        key = (script, received.pixels, reference.sha256 if reference else None)
        variant = self._next_variant(key)
        if (key, variant) not in self._pictures:
            self._pictures[key, variant] = asyncio.get_running_loop().run_in_executor(
                self._threads,
                draw,
                script,
                received.pixels,
                f"{self._seed}-{variant}",
                reference.data if reference else None,
            )
        self._pictures.move_to_end((key, variant))
        while len(self._pictures) > self.SIZE:
            self._pictures.popitem(last=False)
        return await asyncio.shield(self._pictures[key, variant])

    def _next_variant(self, key: _PictureKey) -> int:
        count = self._requested.pop(key, 0)
        self._requested[key] = count + 1
        while len(self._requested) > 1024:
            self._requested.popitem(last=False)
        return count % self._variants
