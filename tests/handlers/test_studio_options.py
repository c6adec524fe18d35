"""The studio's export options, in a real browser: the fields that the form sends."""

import json
from typing import Any

import pytest
import pytest_asyncio

from service.schemas.requests import THUMBNAIL_FIELDS
from tests.conftest import Serve
from tests.handlers.browser import Tab, Visit
from tests.helpers import upload
from tests.test_budgets import detailed, exports_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

READ = """import("./studio/order.js").then(({ readOrder }) =>
  Object.fromEntries([...readOrder().body].filter(([name]) => name !== "script")))"""
CHOOSE = """(([id, member, value]) => {
  const field = document.getElementById(id);
  field[member] = value;
  for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
})(%s)"""


@pytest_asyncio.fixture(loop_scope="session")
async def options(tab: Tab) -> Tab:
    """The page with its export options open and a script, so that the form may be sent."""
    await tab.run("document.querySelector('details').open = true")
    await choose(tab, script="A title")
    return tab


async def choose(tab: Tab, **values: Any) -> None:
    """Set fields by their ids, with underscores for dashes in those that are no fields of the service."""
    for name, value in values.items():
        member = "checked" if isinstance(value, bool) else "value"
        identity = name.replace("_", "-") if name.startswith("focus_") else name
        await tab.run(CHOOSE % json.dumps([identity, member, value]))


async def sent(tab: Tab) -> dict[str, str]:
    fields: dict[str, str] = await tab.run(READ)
    assert {*fields} <= {*THUMBNAIL_FIELDS}
    return fields


async def is_shown(tab: Tab, identity: str) -> bool:
    shown: bool = await tab.run(f"document.getElementById({identity!r}).checkVisibility()")
    return shown


async def is_valid(tab: Tab) -> bool:
    valid: bool = await tab.run("document.getElementById('order').checkValidity()")
    return valid


async def test_untouched_options_are_left_to_the_service(options: Tab) -> None:
    fields = await sent(options)
    assert {"focus", "max_bytes", "allow_resize", "avif_quality", "width", "jpeg_quality"} & {*fields} == set()
    assert not await is_shown(options, "focus-x")
    assert await options.run("document.getElementById('allow_resize').disabled")
    assert await options.run("document.getElementById('avif_quality').placeholder") == "58"
    assert await is_valid(options)


async def test_the_focus_of_a_crop_is_the_centre_automatic_or_a_point(options: Tab) -> None:
    await choose(options, focus="auto")
    assert (await sent(options))["focus"] == "auto"
    await choose(options, focus="point", focus_x="7", focus_y="57.01")
    assert await is_shown(options, "focus-x")
    assert (await sent(options))["focus"] == "0.0700,0.5701"
    await choose(options, focus_x="101")
    assert not await is_valid(options)
    await choose(options, focus="")
    assert "focus" not in await sent(options)
    assert await is_valid(options)


async def test_without_a_crop_there_is_no_focus(options: Tab) -> None:
    await choose(options, focus="point", focus_x="")
    assert not await is_valid(options)
    await choose(options, fit="contain")
    assert not await is_shown(options, "focus")
    assert "focus" not in await sent(options)
    assert await is_valid(options)
    await choose(options, fit="cover", focus_x="0")
    assert (await sent(options))["focus"] == "0.0000,0.5000"


async def test_a_budget_is_in_kilobytes_and_may_take_pixels(options: Tab) -> None:
    await choose(options, max_kilobytes="60", avif_quality="0")
    fields = await sent(options)
    assert (fields["max_bytes"], fields["allow_resize"], fields["avif_quality"]) == ("61440", "false", "0")
    await choose(options, allow_resize=True)
    assert (await sent(options))["allow_resize"] == "true"
    for kilobytes, valid in (("0", False), ("1.5", False), ("976562", True), ("976563", False)):
        await choose(options, max_kilobytes=kilobytes)
        assert await is_valid(options) is valid
    await choose(options, max_kilobytes="")
    assert {"max_bytes", "allow_resize"} & {*await sent(options)} == set()


async def test_a_card_says_what_a_budget_changed(serve: Serve, visit: Visit) -> None:
    service = await serve()
    fields = (("formats", "png,jpeg,webp"), ("width", "320"), ("height", "180"), ("blend", "0"))
    asked = exports_of(await service.thumbnails(upload(detailed()), *fields))
    budgets = (f"png:{asked['png']['size'] * 6 // 10}", f"jpeg:{asked['jpeg']['size'] * 7 // 10}", "webp:2000")
    answer = await service.thumbnails(
        upload(detailed()), *fields, ("max_bytes", ",".join(budgets)), ("allow_resize", "true")
    )
    made = exports_of(answer)
    tab = await visit(service)
    await tab.wait_for("document.querySelectorAll('.card.done').length === 2")
    rows = "[...document.querySelectorAll('.card')].map((card) => [...card.querySelectorAll('.files .hint')]"
    newest, first = await tab.run(f"{rows}.map((hint) => hint.textContent))")
    assert [hint.partition(" · ")[2] for hint in first] == ["", "", ""]
    assert [hint.partition(" · ")[2] for hint in newest] == [
        f"{made['png']['colors']} colours",
        f"quality {made['jpeg']['quality']}",
        f"quality {made['webp']['quality']} · {made['webp']['width']} × {made['webp']['height']}",
    ]
    assert await tab.run("document.querySelector('.card-state').textContent.startsWith('320 × 180')")
