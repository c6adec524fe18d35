"""The studio's export of an uploaded picture alone, in a real browser: no script, no Gemini, animations moving."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.schemas.requests import PICTURE_FIELDS
from tests.animations import animation
from tests.conftest import Serve
from tests.handlers.browser import Tab, Visit, choose_file, press
from tests.imaging import pictures

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXPORT = "Export this picture only"
CARD = "document.querySelector('.card').innerText"
IMAGE = "document.querySelector('.card img')"
FIELDS = """import("./studio/order.js").then(({ readPicture }) =>
  Object.fromEntries([...readPicture().body].filter(([name]) => name !== "image")))"""
WATCH_POLICY = """window.violations = [];
addEventListener("securitypolicyviolation", ({ violatedDirective }) => violations.push(violatedDirective)); 0"""
MIDDLE = "(({ x, y, width, height }) => [x + width / 2, y + height / 2])(%s.getBoundingClientRect())"
GIF = animation("GIF", size=(160, 90))


@pytest_asyncio.fixture(loop_scope="session")
async def tab(visit: Visit, serve: Serve) -> Tab:
    """The studio page of a service without requests, whose cards it would show."""
    return await visit(await serve())


async def choose(tab: Tab, identity: str, member: str, value: object) -> None:
    await tab.run(
        f"{{ const field = document.getElementById('{identity}'); field.{member} = {json.dumps(value)};"
        " for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true })); }"
    )


async def is_shown(tab: Tab, identity: str) -> bool:
    shown: bool = await tab.run(f"document.getElementById('{identity}').checkVisibility()")
    return shown


async def take(tab: Tab, data: bytes, *formats: str) -> None:
    """Choose a picture, and the formats if any are named."""
    await choose_file(tab, data)
    await tab.wait_for("document.getElementById('preview').naturalWidth")
    boxes = "document.querySelectorAll('#formats input')"
    if formats:
        await tab.run(f"for (const box of {boxes}) box.checked = {json.dumps(formats)}.includes(box.value)")


async def export(tab: Tab) -> None:
    await press(tab, EXPORT)
    await tab.wait_for("document.querySelector('.card.done, .card.failed')")


async def looks(tab: Tab, element: str) -> Any:
    """The middle of an element on the screen, as a PNG in base64."""
    x, y = await tab.run(MIDDLE % element)
    clip = {"x": x, "y": y, "width": 4, "height": 4, "scale": 1}
    return (await tab.send("Page.captureScreenshot", format="png", clip=clip))["data"]


async def moves(tab: Tab, element: str) -> None:
    first = await looks(tab, element)
    async with asyncio.timeout(30):
        while await looks(tab, element) == first:
            await asyncio.sleep(0.05)


async def stands_still(tab: Tab, element: str) -> None:
    """It looks the same for two of the rounds that GIF makes in 0.3 s."""
    first = await looks(tab, element)
    for _ in range(6):
        await asyncio.sleep(0.1)
        assert await looks(tab, element) == first


async def shows(tab: Tab, suffix: str) -> None:
    await tab.wait_for(f"{IMAGE}?.naturalWidth && {IMAGE}.src.endsWith('{suffix}')")


@asynccontextmanager
async def less_motion(tab: Tab) -> AsyncIterator[None]:
    preference = {"name": "prefers-reduced-motion", "value": "reduce"}
    await tab.send("Emulation.setEmulatedMedia", features=[preference])
    try:
        yield
    finally:
        await tab.send("Emulation.setEmulatedMedia", features=[])


async def test_an_animation_is_exported_without_a_script_and_its_preview_moves(serve: Serve, visit: Visit) -> None:
    service = await serve()
    tab = await visit(service)
    await tab.run(WATCH_POLICY)
    assert not await is_shown(tab, "export")
    await take(tab, GIF, "jpeg", "webp", "gif")
    await export(tab)
    assert await tab.run("document.querySelector('.card-state').textContent") == "160 × 90 · 3 frames · free"
    rows = await tab.run("[...document.querySelectorAll('.files a')].map((link) => link.innerText.split('\\n'))")
    assert [(row[0], "3 frames" in row[1]) for row in rows] == [("JPEG", False), ("WebP", True), ("GIF", True)]
    await tab.wait_for(f"{IMAGE}?.naturalWidth === 160")
    assert not await tab.run(f"{IMAGE}.src.endsWith('.jpg')")
    await moves(tab, IMAGE)
    await press(tab, "Pause")
    await shows(tab, ".jpg")
    assert await tab.run("document.querySelector('.run h2').textContent") == "Export of picture"
    assert await tab.run("violations") == []
    assert service.emulator.requests == 0


async def test_where_less_motion_is_preferred_nothing_moves_before_play(serve: Serve, visit: Visit) -> None:
    service = await serve()
    async with less_motion(await visit(service)):
        tab = await visit(service)
        await take(tab, GIF, "jpeg", "gif")
        await stands_still(tab, "document.getElementById('preview')")
        await export(tab)
        await shows(tab, ".jpg")
        await press(tab, "Play")
        await shows(tab, ".gif")
        await moves(tab, IMAGE)


async def test_an_animation_without_a_still_waits_for_play_and_another_file_stands_in_for_a_lost_one(
    serve: Serve, visit: Visit
) -> None:
    service = await serve(download_cache_mb=0)
    async with less_motion(await visit(service)):
        tab = await visit(service)
        await take(tab, animation("WEBP", size=(160, 90)), "webp", "gif")
        await export(tab)
        assert "An animation of 3 frames." in await tab.run(CARD)
        assert await tab.run(IMAGE) is None
        output = Path(service.settings.storage_dir, "output")
        smallest, other = sorted(output.glob("export_*"), key=lambda path: path.stat().st_size)
        smallest.unlink()
        await press(tab, "Play")
        await shows(tab, other.name)


async def test_the_animation_is_kept_unless_the_box_is_cleared_or_a_size_is_set(tab: Tab) -> None:
    for data in (pictures.png(8, pictures.RGB), pictures.webp(), GIF):
        await take(tab, data)
        assert await is_shown(tab, "animate")
        assert (await tab.run(FIELDS))["animate"] == "keep"
    await choose(tab, "max_kilobytes", "value", "60")
    assert await is_shown(tab, "animate-hint")
    assert "animate" not in await tab.run(FIELDS)
    await choose(tab, "max_kilobytes", "value", "")
    await choose(tab, "animate", "checked", False)
    assert (await tab.run(FIELDS))["animate"] == "first"
    await take(tab, pictures.jpeg())
    assert not await is_shown(tab, "animate")
    fields = await tab.run(FIELDS)
    assert "animate" not in fields
    assert {*fields} <= {*PICTURE_FIELDS}


async def test_the_first_frame_alone_carries_the_warning_of_the_service(tab: Tab) -> None:
    await take(tab, GIF, "png")
    await choose(tab, "animate", "checked", False)
    await export(tab)
    assert "3 frames" in await tab.run("document.querySelector('.warnings').innerText")
    assert await tab.run("document.querySelector('.card-state').textContent") == "160 × 90 · free"
    assert "Pause" not in await tab.run(CARD)


async def test_options_that_are_wrong_are_shown_and_nothing_is_sent(tab: Tab) -> None:
    await take(tab, GIF)
    assert "export this picture only" in await tab.run("document.getElementById('script').validationMessage")
    await choose(tab, "width", "value", "0")
    await press(tab, EXPORT)
    assert await is_shown(tab, "width")
    assert await tab.run("document.querySelector('.card')") is None
    await press(tab, "Remove")
    assert not await is_shown(tab, "export")
    assert "only" not in await tab.run("document.getElementById('script').validationMessage")


async def test_a_refusal_is_shown_and_offered_again_only_if_it_may_pass(serve: Serve, visit: Visit) -> None:
    key = "a-key-of-the-service"
    service = await serve(max_animation_frames=2, api_keys=key)
    tab = await visit(service)
    await take(tab, GIF, "gif")
    await choose(tab, "key", "value", "not-a-key-of-the-service")
    await export(tab)
    assert await tab.run("document.activeElement.id") == "key"
    await choose(tab, "key", "value", key)
    await press(tab, "Try again")
    await tab.wait_for(f"{CARD}.includes('too_many_pixels')")
    assert "free" not in await tab.run(CARD)
    assert await tab.run("document.querySelector('.card button')") is None
    await choose(tab, "animate", "checked", False)
    await press(tab, EXPORT)
    await tab.wait_for("document.querySelector('.card.done')")


async def test_an_export_can_be_cancelled_and_sent_again(serve: Serve, visit: Visit) -> None:
    tab = await visit(await serve())
    await tab.run(
        "{ const real = window.fetch; let calls = 0; window.fetch = (url, options) => url !== 'api/exports' || calls++"
        "  ? real(url, options)"
        "  : new Promise((_, reject) => options.signal.addEventListener('abort', () => reject(new Error()))); }"
    )
    await take(tab, GIF, "gif")
    await press(tab, EXPORT)
    assert await tab.run("document.getElementById('export').disabled")
    assert not await tab.run("document.getElementById('generate').disabled")
    await press(tab, "Cancel")
    await tab.wait_for("document.querySelector('.card.cancelled')")
    await press(tab, "Send it")
    await tab.wait_for("document.querySelector('.card.done')")
    assert not await tab.run("document.getElementById('export').disabled")
