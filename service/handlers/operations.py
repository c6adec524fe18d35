"""Liveness, readiness and metrics."""

import asyncio

from aiohttp import hdrs, web

from service.errors import NotReady, ServiceError
from service.gemini.costs import usd
from service.metrics import negotiated
from service.schemas.answers import Checks, HealthAnswer, ReadyAnswer
from service.server.admission import VARIATION_BYTES
from service.server.keys import ADMISSION, EXPORTS, GEMINI, KEYRING, LEDGER, METRICS, SETTINGS, SWEEPER
from service.server.sending import answer
from service.store.descriptors import BEGIN, shortage, spare


async def healthz(request: web.Request) -> web.StreamResponse:
    """Liveness: the event loop answers."""
    return answer(HealthAnswer(status="ok"))


async def readyz(request: web.Request) -> web.StreamResponse:
    """Readiness: disk, file descriptors, workers, scheduler, emulator; raises NotReady naming the failed checks."""
    app = request.app
    checks = Checks(
        storage=await _storage(request),
        ledger=await _ledger(request),
        descriptors="ok" if spare(BEGIN) > 0 else shortage(),
        workers="ok" if app[EXPORTS].pool.alive else "no worker is up",
        scheduler=app[SWEEPER].state(),
        admission="draining" if app[ADMISSION].draining else "ok",
        emulator=_emulator(request),
        # The previous keys stay valid, so a file that cannot be used is no reason to be taken out of service.
        keys=app[KEYRING].state if app[SETTINGS].api_keys_file else None,
    )
    failed = [f"{name}: {state}" for name, state in checks if name != "keys" and state not in ("ok", None)]
    if failed:
        raise NotReady("; ".join(failed))
    ready = ReadyAnswer(status="ready", checks=checks, emulator=app[SETTINGS].emulates)
    return web.Response(body=ready.model_dump_json(exclude_none=True), content_type="application/json")


def _emulator(request: web.Request) -> str | None:
    if not request.app[SETTINGS].emulates:
        return None
    return "ok" if request.app[GEMINI].up() else "not running"


async def _storage(request: web.Request) -> str:
    try:
        request.app[ADMISSION].check_space(VARIATION_BYTES, await request.app[EXPORTS].store.probe())
    except ServiceError as error:
        return error.detail
    return "ok"


async def _ledger(request: web.Request) -> str:
    try:
        await request.app[LEDGER].probe()
    except ServiceError as error:
        return error.detail
    return "ok"


async def metrics(request: web.Request) -> web.StreamResponse:
    """Metrics in the text format of Prometheus, or as OpenMetrics if the client prefers that."""
    await _update_ledger_metrics(request)
    content_type = negotiated(",".join(request.headers.getall(hdrs.ACCEPT, ())))
    text = await asyncio.to_thread(request.app[METRICS].text, content_type)
    return web.Response(body=text, headers={"Content-Type": content_type, "Vary": "Accept"})


async def _update_ledger_metrics(request: web.Request) -> None:
    """Update the metrics that come from the ledger; if it cannot be read, they keep their last values."""
    ledger, metrics, budget = request.app[LEDGER], request.app[METRICS], request.app[SETTINGS].budget_nano
    try:
        states, today = await ledger.states(), await ledger.today()
    except ServiceError:
        return
    metrics.ledger(states, usd(today.possible), None if budget is None else usd(budget - today.used))
