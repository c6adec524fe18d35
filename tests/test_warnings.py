"""Warnings: problems that did not stop an export, over HTTP and in Python."""

from pathlib import Path

import pytest
from PIL import Image

from service.emulator.responders import repainted
from service.exports import ImageExportService
from tests.conftest import Serve, settings_in
from tests.helpers import QuickEmulator, Running, decoded, picture_bytes, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")


def animation(kind: str = "WEBP", size: tuple[int, int] = (64, 36)) -> bytes:
    second = Image.new("RGB", size, "blue")
    return picture_bytes(size, "red", kind, save_all=True, append_images=[second], duration=100)


@on_one_loop
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
async def test_an_uploaded_animation_becomes_its_first_frame_with_a_warning(service: Running, kind: str) -> None:
    before = await service.counter("image_export_warnings_total")
    body = (await service.exports(upload(animation(kind)), ("formats", "png"))).json
    assert [(each["code"], each["format"]) for each in body["warnings"]] == [("animation_ignored", None)]
    assert "2 frames" in body["warnings"][0]["detail"]
    assert (body["metadata"]["frames"], body["exports"]["png"]["frames"]) == (2, 1)
    shown = decoded((await service.get(body["exports"]["png"]["url"])).body).getpixel((9, 9))
    assert shown == pytest.approx((255, 0, 0), abs=3)
    assert await service.counter("image_export_warnings_total") == before + 1


@on_one_loop
async def test_an_animated_base_is_no_warning(service: Running) -> None:
    exported = await service.exports(upload(picture_bytes((64, 36))), upload(animation(), "base"), ("formats", "jpeg"))
    drawn = await service.thumbnails(upload(animation()), ("width", "64"), ("formats", "jpeg"))
    [variation] = drawn.json["variations"]
    assert (exported.json["metadata"]["composited"], exported.json["warnings"]) == (True, [])
    assert (variation["metadata"]["composited"], variation["warnings"]) == (True, [])


@on_one_loop
async def test_a_picture_of_another_ratio_than_requested_carries_a_warning(serve: Serve) -> None:
    service = await serve(QuickEmulator(then=repainted(lambda _: picture_bytes((1024, 1024)))))
    answer = await service.thumbnails(("formats", "jpeg"))
    [variation] = answer.json["variations"]
    [warning] = variation["warnings"]
    assert (warning["code"], warning["format"]) == ("ratio_ignored", None)
    assert "1024 x 1024" in warning["detail"]
    assert "1024 x 576, 44 % of it was cut" in warning["detail"]
    assert variation["metadata"]["normalized_to"] == [1024, 576]
    assert await service.counter("image_export_warnings_total") == 1


@on_one_loop
async def test_an_animation_from_gemini_carries_a_warning(serve: Serve) -> None:
    service = await serve(QuickEmulator(then=repainted(lambda _: animation(size=(1376, 768)), "image/webp")))
    [variation] = (await service.thumbnails(("formats", "jpeg"))).json["variations"]
    assert [each["code"] for each in variation["warnings"]] == ["animation_ignored"]


@on_one_loop
@pytest.mark.parametrize("ratio", ["1:1", "2:3", "3:2", "4:5", "9:16", "21:9", "1:8", "8:1"])
async def test_the_usual_sizes_of_gemini_carry_no_ratio_warning(service: Running, ratio: str) -> None:
    answer = await service.thumbnails(("aspect_ratio", ratio), ("width", "16"), ("formats", "jpeg"))
    [variation] = answer.json["variations"]
    assert variation["warnings"] == []


async def test_warnings_in_python(tmp_path: Path) -> None:
    async with ImageExportService(settings_in(tmp_path)) as exports:
        made = await exports.process_and_export_image(animation())
    assert [(warning.code, warning.format) for warning in made.warnings] == [("animation_ignored", None)]
    assert made["png"]["width"] == 64


@on_one_loop
async def test_webp_is_spelled_one_way(service: Running) -> None:
    answer = await service.exports(upload(picture_bytes(kind="WEBP")[:-30]))
    assert answer.json["detail"] == "the WebP picture is broken or cut"
