"""The studio's choice of formats, in a real browser: what the table of formats says."""

import pytest

from service.imaging.formats import DEFAULT_FORMATS, FORMATS
from tests.handlers.browser import Tab, choose_file
from tests.imaging import pictures

pytestmark = pytest.mark.asyncio(loop_scope="session")

HINT = "document.getElementById('image-hint').textContent"
REFUSAL = "document.getElementById('image-refusal').textContent"


async def test_every_format_is_offered_and_chosen(tab: Tab) -> None:
    boxes = "[...document.querySelectorAll('#formats input')]"
    assert await tab.run(f"{boxes}.map((box) => box.value)") == list(FORMATS)
    assert await tab.run(f"{boxes}.map((box) => box.checked)") == [name in DEFAULT_FORMATS for name in FORMATS]
    assert await tab.run("document.getElementById('formats').textContent.trim().split(/\\s+/)") == [
        "PNG",
        "JPEG",
        "WebP",
        "AVIF",
        "GIF",
    ]


async def test_a_base_is_recognized_by_its_first_bytes(tab: Tab) -> None:
    for data in (pictures.png(8, pictures.RGB), pictures.jpeg(), pictures.webp(), pictures.gif()):
        await choose_file(tab, data)
        await tab.wait_for(f"{HINT}.startsWith('picture,')")
    await choose_file(tab, b"II*\0" + bytes(20))
    await tab.wait_for(f"{REFUSAL} === 'picture is not a PNG, JPEG, WebP or GIF picture.'")
