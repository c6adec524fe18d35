"""The studio's choice of formats, in a real browser: what the table of formats says."""

import pytest

from service.imaging.formats import DEFAULT_FORMATS, FORMATS
from tests.handlers.browser import Tab
from tests.imaging import pictures

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHOOSE = """(async () => {
  const input = document.getElementById("image"), files = new DataTransfer();
  files.items.add(new File([new Uint8Array(%s)], "base"));
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
})()"""
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
        await tab.run(CHOOSE % list(data))
        await tab.wait_for(f"{HINT}.startsWith('base,')")
    await tab.run(CHOOSE % list(b"II*\0" + bytes(20)))
    await tab.wait_for(f"{REFUSAL} === 'base is not a PNG, JPEG, WebP or GIF picture.'")
