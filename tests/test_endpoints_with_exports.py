"""A script in, finished and downloadable pictures out: the main job, end to end."""

import re

import pytest

from tests.conftest import Serve
from tests.helpers import Running, decoded, picture_bytes, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_script_and_a_base_become_two_variations_and_six_downloads(service: Running) -> None:
    answer = await service.thumbnails(
        upload(picture_bytes((640, 360), "blue")), ("aspect_ratio", "16:9"), ("count", "2")
    )
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["errors"] == []
    assert [each["id"] for each in body["variations"]] == ["var-1", "var-2"]
    for variation in body["variations"]:
        for export in variation["exports"].values():
            got = await service.get(export["url"])
            assert got.status == 200
            assert got.headers["Content-Type"] == export["content_type"]
            picture = decoded(got.body)
            assert picture.size == (1280, 720)
            assert picture.format == export["format"]
            assert len(got.body) == export["size"]


async def test_signed(serve: Serve) -> None:
    service = await serve(sign_urls=True, signing_secret="s" * 32)
    answer = await service.thumbnails()
    assert answer.status == 200
    url = answer.json["variations"][0]["exports"]["png"]["url"]
    assert re.fullmatch(r"/api/download/export_[0-9a-f]{32}\.png\?expires=\d+&signature=[0-9a-f]{64}", url)
    assert (await service.get(url)).status == 200
