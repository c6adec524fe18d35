"""Every link in an answer is absolute where PUBLIC_URL is set, else relative."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Serve
from tests.helpers import QuickEmulator, Running, picture_bytes, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLIC = "https://pics.example/thumbs"
TINY = (("formats", "webp"), ("width", "16"))


def links(value: Any) -> Iterator[str]:
    """The links of a body: `url` of exports, and `type` of problems."""
    if isinstance(value, dict):
        yield from (text for name, text in value.items() if name in ("url", "type") and text)
        for each in value.values():
            yield from links(each)
    elif isinstance(value, list):
        for each in value:
            yield from links(each)


async def all_links(service: Running) -> list[str]:
    """The links of an answer of each kind, success and error."""
    made = await service.thumbnails(*TINY)
    one = f"/api/thumbnails/{made.json['request_id']}"
    answers = [
        made,
        await service.exports(upload(picture_bytes()), *TINY),
        await service.post(f"{one}/variations/var-1/exports"),
        await service.get(one),
        await service.get("/api/thumbnails"),
        await service.get("/nowhere"),
        await service.ask("DELETE", "/healthz"),
        await service.post("/api/exports"),
        await service.raw(b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
        await service.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: the-moon\r\n\r\n"),
    ]
    service.emulator.play("blocked_unknown")  # type: ignore[attr-defined]
    answers.append(await service.thumbnails(*TINY))
    later = await service.thumbnails(*TINY, headers={"Prefer": "respond-async"})
    found = [[*links(answer.json)] for answer in answers]
    assert [] not in found
    events = (await service.get(f"{one}/events")).body.decode()
    assert f'"{found[0][0]}"' in events
    return [later.headers["Location"], *(link for each in found for link in each)]


async def test_links_are_absolute_where_public_url_is_set(serve: Serve) -> None:
    found = await all_links(await serve(QuickEmulator(), public_url=f"{PUBLIC}/"))
    assert [link for link in found if not link.startswith(f"{PUBLIC}/")] == []
    assert f"{PUBLIC}/docs#problem-not_found" in found


async def test_links_are_relative_without_it(serve: Serve) -> None:
    found = await all_links(await serve(QuickEmulator()))
    assert [link for link in found if not link.startswith("/") or link.startswith("//")] == []
    assert "/docs#problem-blocked" in found
