"""The studio's "Try again", in a real browser: what may have been billed is sent again only after a second press."""

import json
import os
from pathlib import Path

import pytest

from tests.handlers.browser import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What the page's requests meet, in turn; the last outcome holds.
PLAY = """
window.asked = 0;
const unheard = (signal) => new Promise((_, refuse) => (signal.onabort = () => refuse(signal.reason)));
const half = { ok: false, status: 502, headers: new Headers(), text: () => Promise.reject(new TypeError("cut")) };
window.fetch = async (url, { signal }) => {
  asked += 1;
  const [status, body] = outcomes.length > 1 ? outcomes.shift() : outcomes[0];
  if (status === "hang") return unheard(signal);
  if (status === "drop") throw new TypeError("Failed to fetch");
  return status === "cut" ? half : new Response(body, { status });
};
"""
PRESS = "document.querySelector('.card-more button').click()"
CARD = "document.querySelector('.card').innerText"


def problem(status: int, code: str, retryable: bool, billed: bool | None) -> list[object]:
    fields = {"title": code, "detail": "why", "code": code, "retryable": retryable, "billed": billed}
    return [status, json.dumps(fields)]


async def generate(tab: Tab, *outcomes: object) -> None:
    """One variation whose requests meet these outcomes."""
    literal = json.dumps([each if isinstance(each, list) else [each, ""] for each in outcomes])
    await tab.run(f"{{ window.outcomes = {literal}; {PLAY} }}")
    await tab.run("document.querySelectorAll('.run').forEach((run) => run.remove())")
    await tab.run(
        "document.getElementById('count').value = 1; document.getElementById('script').value = 'A title';"
        "document.getElementById('script').dispatchEvent(new Event('input'));"
        "document.getElementById('order').requestSubmit(); 0"
    )


async def test_what_may_have_been_billed_is_sent_again_only_after_a_second_press(tab: Tab) -> None:
    for outcome in ("drop", "cut", [502, "<h1>Bad gateway</h1>"]):
        await generate(tab, outcome)
        await tab.wait_for("document.querySelector('.card.failed')")
        assert await tab.run("document.querySelector('.card-more button').textContent") == "Try again"
        await tab.run(PRESS)
        assert await tab.run("asked") == 1
        card = await tab.run(CARD)
        assert "it may be billed twice" in card
        assert "Send again: may be billed twice" in card
        if folder := os.environ.get("SCREENSHOTS"):
            await tab.screenshot(Path(folder, "again.png"))
        await tab.run(PRESS)
        await tab.wait_for("asked === 2 && document.querySelector('.card.failed')")
        # The next failure asks for confirmation again.
        assert await tab.run("document.querySelector('.card-more button').textContent") == "Try again"


async def test_a_double_click_confirms_nothing(tab: Tab) -> None:
    await generate(tab, "drop")
    await tab.wait_for("document.querySelector('.card.failed')")
    for count in (1, 2):
        click = f"new MouseEvent('click', {{ bubbles: true, detail: {count} }})"
        await tab.run(f"document.querySelector('.card-more button').dispatchEvent({click})")
    assert await tab.run("asked") == 1


async def test_a_request_that_was_not_billed_is_repeated_at_once(tab: Tab) -> None:
    for refusal in (problem(503, "busy", True, False), problem(401, "unauthorized", False, False)):
        await generate(tab, refusal)
        await tab.wait_for("document.querySelector('.card.failed')")
        await tab.run(PRESS)
        await tab.wait_for("asked === 2")
        await tab.wait_for("document.querySelector('.card.failed')")


async def test_what_the_service_calls_unknown_or_billed_is_not_offered_again(tab: Tab) -> None:
    for billed in (True, None):
        await generate(tab, problem(502, "outcome_unknown", False, billed))
        await tab.wait_for("document.querySelector('.card.failed')")
        assert await tab.run("document.querySelector('.card-more button')") is None


async def test_a_request_that_was_cancelled_after_it_was_sent_asks_too(tab: Tab) -> None:
    await generate(tab, "hang")
    await tab.wait_for("asked === 1")
    await tab.run("document.querySelector('.cancel').click()")
    await tab.wait_for("document.querySelector('.card.cancelled')")
    await tab.run(PRESS)
    assert await tab.run("asked") == 1
    assert "it may be billed twice" in await tab.run(CARD)
    await tab.run(PRESS)
    await tab.wait_for("asked === 2")
