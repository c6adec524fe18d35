"""The studio's runs, in a real browser: pictures as they come, after a reload and a lost connection, and Cancel."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.emulator.responders import PendingRequest, one_picture
from service.server.keys import ADMISSION
from tests.conftest import Serve
from tests.handlers.browser import Tab, Visit, cards, generate, press
from tests.helpers import QuickEmulator, Running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOTE = "document.querySelector('.note:not([hidden])')?.innerText ?? ''"
REFUSAL = "document.querySelector('#earlier:not([hidden])')"
# The first three streams of events fail: refused, silent, and closed after the first event.
FAULTS = """
window.streams = [];
const real = window.fetch;
const faults = [
  () => { throw new TypeError("Failed to fetch"); },
  () => new Response(new ReadableStream()),
  async (response) => {
    const reader = (await response).body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.includes("event: sent")) text += (await reader.read()).value;
    return new Response(text.slice(0, text.indexOf("\\n\\n", text.indexOf("event: sent")) + 2));
  },
];
window.fetch = (url, options) => {
  const response = real(url, options);
  if (!url.endsWith("/events")) return response;
  streams.push(options.headers["Last-Event-ID"]);
  return faults.length ? faults.shift()(response) : response;
};
"""
KEY, OTHER = "a-key-of-the-service", "b-key-of-the-service"


class Gate:
    """Holds each call until it is let through."""

    def __init__(self) -> None:
        self.passes = asyncio.Semaphore(0)

    async def __call__(self, pending: PendingRequest) -> Any:
        await self.passes.acquire()
        return await one_picture(pending)

    def let(self, calls: int) -> None:
        for _ in range(calls):
            self.passes.release()


async def done(tab: Tab, count: int) -> None:
    await tab.wait_for(f"document.querySelectorAll('.card.done').length === {count}")


async def test_each_variation_appears_as_it_comes(serve: Serve, visit: Visit) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    tab = await visit(service)
    await generate(tab, count=3)
    await tab.wait_for("document.querySelectorAll('.card.sent').length === 3")
    assert await tab.run("document.getElementById('generate').disabled")
    gate.let(1)
    await done(tab, 1)
    assert await cards(tab, "sent") == 2
    assert "1 of 3 ready" in await tab.run("document.title")
    gate.let(2)
    await done(tab, 3)
    await tab.wait_for("!document.getElementById('generate').disabled")
    assert "$0.0338" in await tab.run("document.querySelector('.card-state').innerText")
    assert "3 of 3 ready · $0.10" in await tab.run("document.querySelector('.run-state').innerText")
    [request] = (await service.get("/api/thumbnails")).json["requests"]
    assert (request["count"], request["mode"]) == (3, "async")


async def test_a_reload_finds_the_pictures_again(serve: Serve, visit: Visit) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    tab = await visit(service)
    await generate(tab, count=2, script="Of before")
    gate.let(1)
    await done(tab, 1)
    await visit(service)
    await done(tab, 1)
    assert await cards(tab, "sent") == 1
    assert await tab.run("document.querySelector('h2').textContent") == "Of before"
    gate.let(1)
    await done(tab, 2)
    await tab.wait_for("[...document.querySelectorAll('.card img')].every((each) => each.naturalWidth === 1280)")
    assert service.emulator.requests == 2


async def test_pictures_whose_files_were_removed_say_so(serve: Serve, visit: Visit) -> None:
    service = await serve()
    await service.thumbnails(("formats", "jpeg"))
    for name in service.area("output"):
        Path(service.settings.storage_dir, "output", name).unlink()
    tab = await visit(service)
    await done(tab, 1)
    assert "Its files have been removed." in await tab.run("document.querySelector('.card').innerText")
    assert await tab.run("document.querySelector('.card a')") is None


async def test_a_lost_connection_is_made_again_where_it_broke(serve: Serve, visit: Visit) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), sse_heartbeat_seconds=0.2)
    tab = await visit(service)
    await tab.run("{" + FAULTS + "}")
    await generate(tab)
    await tab.wait_for(f"({NOTE}).includes('keeps trying')")
    assert not await tab.run("document.getElementById('generate').disabled")
    await tab.wait_for(f"streams.length >= 4 && !({NOTE})")
    assert (await tab.run("streams"))[:4] == ["0", "0", "0", "1"]
    gate.let(1)
    await done(tab, 1)
    assert service.emulator.requests == 1


async def begin(service: Running, count: int) -> None:
    """Requests with two variations each, which run in the background."""
    for number in range(count):
        headers = {"Prefer": "respond-async", "Idempotency-Key": str(number)}
        assert (await service.thumbnails(("count", "2"), headers=headers)).status == 202


async def test_two_requests_are_streamed_and_the_others_polled(serve: Serve, visit: Visit) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    await begin(service, 4)
    tab = await visit(service)
    await tab.wait_for("document.querySelectorAll('.card.sent').length === 8")
    fetched = "performance.getEntriesByType('resource').map((each) => each.name)"
    await tab.wait_for(f"{fetched}.filter((name) => /req_[0-9a-f]+$/.test(name)).length >= 2")
    await until(lambda: service.app[ADMISSION].inside["download"] == 2)
    gate.let(8)
    await done(tab, 8)


async def test_cancel_stops_what_was_not_sent(serve: Serve, visit: Visit) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    tab = await visit(service)
    await generate(tab, count=3)
    await tab.wait_for("document.querySelector('.card.sent')")
    await press(tab, "Cancel")
    await tab.wait_for("document.querySelectorAll('.card.cancelled').length === 2")
    assert "What was sent before is still received" in await tab.run(NOTE)
    gate.let(1)
    await done(tab, 1)
    assert service.emulator.requests == 1
    await press(tab, "Send it")
    gate.let(1)
    await done(tab, 2)
    assert service.emulator.requests == 2


async def test_an_upload_that_is_cancelled_sends_nothing(serve: Serve, visit: Visit) -> None:
    service = await serve()
    tab = await visit(service)
    await tab.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1}
    await tab.send("Network.emulateNetworkConditions", **slow)
    await generate(tab, count=2)
    await press(tab, "Cancel")
    await tab.wait_for("document.querySelectorAll('.card.cancelled').length === 2")
    assert await tab.run(NOTE) == "Cancelled before anything was sent."
    assert service.emulator.requests == 0
    await tab.send("Network.disable")


async def test_a_request_that_is_cancelled_as_it_arrives_is_found_and_stopped(serve: Serve, visit: Visit) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    tab = await visit(service)
    await tab.run(
        "{ const real = window.fetch; window.fetch = async (url, options) => {"
        "  const answer = await real(url, { ...options, signal: null });"
        "  if (url !== 'api/thumbnails') return answer;"
        "  return new Promise((_, reject) => options.signal.addEventListener('abort', () => reject(new Error())));"
        "} }"
    )
    await generate(tab, count=2)
    await until(lambda: service.emulator.in_flight == 1)
    await press(tab, "Cancel")
    await tab.wait_for("document.querySelector('.card.cancelled')")
    gate.let(1)
    await done(tab, 1)
    assert service.emulator.requests == 1


async def enter_key(tab: Tab, key: str) -> None:
    await tab.run(
        f"document.getElementById('key').value = '{key}';"
        "['input', 'change'].forEach((name) => document.getElementById('key').dispatchEvent(new Event(name))); 0"
    )


async def test_a_key_shows_its_own_requests(serve: Serve, visit: Visit) -> None:
    service = await serve(api_keys=f"{KEY},{OTHER}")
    tab = await visit(service)
    await enter_key(tab, "not-a-key-of-the-service")
    await tab.wait_for(f"{REFUSAL}?.innerText.includes('Earlier requests cannot be shown')")
    await generate(tab)
    await tab.wait_for("document.querySelector('.card.failed')")
    assert await tab.run("document.activeElement.id") == "key"
    await enter_key(tab, KEY)
    await tab.wait_for(f"!{REFUSAL}")
    await press(tab, "Try again")
    await done(tab, 1)
    await visit(service)
    await done(tab, 1)
    await enter_key(tab, OTHER)
    await tab.wait_for("!document.querySelector('.run')")
    assert await tab.run("document.getElementById('empty').checkVisibility()")
