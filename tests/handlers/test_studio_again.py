"""The studio's "Try again", in a real browser: it never pays twice for one variation."""

import json
from typing import Any

import pytest

from tests.conftest import Serve
from tests.handlers.browser import Tab, Visit, cards, generate, press
from tests.helpers import QuickEmulator

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What the page's POST requests meet between it and the service, in turn. `sent` has all requests of the page.
FAULTS = """
window.sent = [];
window.faults = %s;
const real = window.fetch;
const cut = { ok: false, status: 502, headers: new Headers(), text: () => Promise.reject(new TypeError("cut")) };
window.fetch = async (url, options) => {
  sent.push({ method: options.method ?? "GET", url, key: options.headers?.["Idempotency-Key"] });
  const fault = options.method === "POST" ? faults.shift() : null;
  if (fault === "lost answer") await real(url, options);
  if (fault === "lost answer" || fault === "lost") throw new TypeError("Failed to fetch");
  if (fault === "cut") return cut;
  return fault ? new Response(fault[1], { status: fault[0] }) : real(url, options);
};
"""
KEYS = "sent.filter(({ method }) => method === 'POST').map(({ key }) => key)"
CARD = "document.querySelector('.card').innerText"


def problem(status: int, code: str, retryable: bool) -> list[Any]:
    fields = {"title": code, "detail": "why", "code": code, "retryable": retryable, "billed": False}
    return [status, json.dumps(fields)]


async def meet(tab: Tab, *faults: object) -> None:
    await tab.run("{" + FAULTS % json.dumps(faults) + "}")


async def test_a_request_whose_answer_was_lost_is_found_again(serve: Serve, visit: Visit) -> None:
    service = await serve()
    tab = await visit(service)
    await meet(tab, "lost answer")
    await generate(tab, count=2)
    await tab.wait_for("document.querySelector('.card.failed')")
    assert "2 variations" in await tab.run(CARD)
    assert "billed twice" not in await tab.run("document.body.innerText")
    await press(tab, "Try again")
    await tab.wait_for("document.querySelectorAll('.card.done').length === 2")
    assert service.emulator.requests == 2
    assert len((await service.get("/api/thumbnails")).json["requests"]) == 1


async def test_a_request_that_did_not_arrive_is_sent_again_with_its_key(serve: Serve, visit: Visit) -> None:
    service = await serve()
    tab = await visit(service)
    await meet(tab, "lost", "cut", [502, "<h1>Bad gateway</h1>"], problem(503, "busy", True))
    await generate(tab)
    for _ in range(4):
        await tab.wait_for("document.querySelector('.card.failed')")
        await press(tab, "Try again")
    await tab.wait_for("document.querySelector('.card.done')")
    keys = await tab.run(KEYS)
    assert len(keys) == 5
    assert len(set(keys)) == 1
    assert service.emulator.requests == 1


async def test_a_refusal_that_stays_is_not_offered_again(serve: Serve, visit: Visit) -> None:
    service = await serve()
    tab = await visit(service)
    await meet(tab, problem(422, "invalid_field", False))
    await generate(tab)
    await tab.wait_for("document.querySelector('.card.failed')")
    assert await tab.run("document.querySelector('.card button')") is None
    assert service.emulator.requests == 0


async def test_a_variation_that_failed_unbilled_is_a_new_request_for_one(serve: Serve, visit: Visit) -> None:
    service = await serve(QuickEmulator(faults=["internal"]), gemini_concurrency=1, gemini_retry_seconds=0)
    tab = await visit(service)
    await meet(tab)
    await generate(tab, count=2)
    await tab.wait_for("document.querySelectorAll('.card.failed, .card.done').length === 2")
    await press(tab, "Try again")
    await tab.wait_for("document.querySelectorAll('.card.done').length === 2")
    assert len(set(await tab.run(KEYS))) == 2
    assert service.emulator.requests == 3


async def test_what_may_have_been_billed_is_looked_for_and_not_sent_again(serve: Serve, visit: Visit) -> None:
    service = await serve(QuickEmulator(faults=["drop", "blocked_safety"]), gemini_concurrency=1)
    tab = await visit(service)
    await meet(tab)
    await generate(tab, count=2)
    await tab.wait_for("document.querySelectorAll('.card.failed').length === 2")
    buttons = "[...document.querySelectorAll('.card button')].map((each) => each.textContent)"
    assert await tab.run(buttons) == ["Look again"]
    await press(tab, "Look again")
    await tab.wait_for("document.querySelectorAll('.card.failed').length === 2")
    assert service.emulator.requests == 2
    assert len(await tab.run(KEYS)) == 1
    assert await cards(tab, "done") == 0
