"""Byte budgets, from a form to the published files."""

import hashlib
import io
import random
import re
from functools import cache
from typing import Any

import pytest
from PIL import Image

from service.imaging.formats import FORMATS
from tests.conftest import Serve
from tests.helpers import Answer, Running, assert_problem, decoded, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVERY = ("formats", ",".join(FORMATS))


@cache
def detailed() -> bytes:
    """A PNG of 320 x 180 that no format makes small: a gradient and noise."""
    noise, gradient = noise_of((320, 180)), Image.linear_gradient("L").resize((320, 180))
    return as_png(Image.merge("RGB", (noise, gradient, noise.transpose(Image.Transpose.ROTATE_180))))


def noise_of(size: tuple[int, int]) -> Image.Image:
    return Image.frombytes("L", size, random.Random(1).randbytes(size[0] * size[1]))


def as_png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def exports_of(answer: Answer) -> dict[str, dict[str, Any]]:
    body = answer.json["variations"][0] if "variations" in answer.json else answer.json
    exports: dict[str, dict[str, Any]] = body["exports"]
    return exports


def again(answer: Answer) -> str:
    return f"/api/thumbnails/{answer.json['request_id']}/variations/var-1/exports"


@pytest.mark.parametrize("allow_resize", ["false", "true"])
async def test_no_file_is_larger_than_its_budget_and_the_answer_says_what_it_is(
    service: Running, allow_resize: str
) -> None:
    fields = (EVERY, ("max_bytes", "9000"), ("allow_resize", allow_resize))
    answer = await service.exports(upload(detailed()), *fields)
    assert answer.status == 200, answer.body
    assert answer.json["metadata"]["normalized_to"] == [320, 180]
    exports = exports_of(answer)
    left_out = {each["format"] for each in answer.json["warnings"] if each["code"] == "over_budget"}
    assert {*exports} | left_out == {*FORMATS}
    assert exports
    for export in exports.values():
        data = (await service.get(export["url"])).body
        assert export["size"] == len(data) <= 9000
        assert export["sha256"] == hashlib.sha256(data).hexdigest()
        assert decoded(data).size == (export["width"], export["height"])
    if allow_resize == "true":
        assert left_out == set()
        assert exports["png"]["width"] < 320


async def test_a_palette_that_a_budget_chose_is_answered(service: Running) -> None:
    plain = exports_of(await service.exports(upload(detailed()), ("formats", "png")))["png"]
    assert (plain["quality"], plain["colors"]) == (None, None)
    budget = ("max_bytes", f"png:{plain['size'] * 6 // 10}")
    exported = exports_of(await service.exports(upload(detailed()), ("formats", "png"), budget))["png"]
    assert exported["colors"] in (256, 128, 64, 32, 16)
    picture = decoded((await service.get(exported["url"])).body)
    assert picture.mode == "P"
    assert len(picture.getcolors() or ()) <= exported["colors"]


async def test_a_quality_that_a_budget_chose_is_answered(service: Running) -> None:
    plain = exports_of(await service.exports(upload(detailed()), EVERY))
    assert [plain[name]["quality"] for name in FORMATS] == [None, 85, 80, 58, None]
    budgets = ",".join(f"{name}:{plain[name]['size'] * 7 // 10}" for name in ("jpeg", "webp", "avif"))
    lower = exports_of(await service.exports(upload(detailed()), EVERY, ("max_bytes", budgets)))
    for name in ("jpeg", "webp", "avif"):
        assert 10 <= lower[name]["quality"] < plain[name]["quality"]
    assert lower["png"]["sha256"] == plain["png"]["sha256"]


async def test_a_format_over_its_budget_is_left_out_with_a_warning(service: Running) -> None:
    answer = await service.exports(upload(detailed()), ("max_bytes", "png:100"))
    assert answer.status == 200, answer.body
    assert list(exports_of(answer)) == ["jpeg", "webp"]
    [warning] = answer.json["warnings"]
    assert (warning["code"], warning["format"]) == ("over_budget", "png")
    assert re.fullmatch(r"the PNG takes at least \d+ bytes; 100 are allowed", warning["detail"])


async def test_when_every_format_is_over_its_budget_there_is_no_export(service: Running) -> None:
    with service.nothing_spent_or_left():
        answer = await service.exports(upload(detailed()), ("formats", "png,jpeg"), ("max_bytes", "9"))
    body = assert_problem(answer, 422, "no_export")
    assert (body["retryable"], body["billed"]) == (False, False)
    pattern = r"the PNG takes at least \d+ bytes; 9 are allowed; the JPEG takes at least \d+ bytes; 9 are allowed"
    assert re.fullmatch(pattern, body["detail"])


async def test_a_variation_over_every_budget_keeps_its_picture(serve: Serve) -> None:
    service = await serve()
    budget = (("formats", "jpeg,avif"), ("max_bytes", "9"))
    answer = await service.thumbnails(*budget)
    body = assert_problem(answer, 422, "no_export", "the picture is kept, but the JPEG takes at least", "9 are allowed")
    [error] = body["errors"]
    assert (error["code"], error["status"], error["retryable"], error["billed"]) == ("no_export", 422, False, True)
    assert error["storage_path"] == f"generated/{body['request_id']}_1.png"
    status = (await service.get(f"/api/thumbnails/{body['request_id']}")).json
    assert (status["state"], status["errors"]) == ("failed", [error])
    assert service.area("output") == service.area("temp") == []
    assert_problem(await service.post(again(answer)), 422, "no_export", "the JPEG takes at least")
    enough = await service.post(again(answer), ("max_bytes", "jpeg:1000000"))
    assert list(exports_of(enough)) == ["jpeg", "avif"]
    assert service.emulator.requests == 1


async def test_exporting_again_keeps_the_budget_of_the_request(service: Running) -> None:
    fields = (("formats", "jpeg"), ("max_bytes", "9000"), ("allow_resize", "on"), ("width", "320"), ("blend", "0"))
    answer = await service.thumbnails(upload(detailed()), *fields)
    [first] = exports_of(answer).values()
    assert first["quality"] < 85
    other = exports_of(await service.post(again(answer), ("formats", "jpeg,avif")))
    assert other["jpeg"]["sha256"] == first["sha256"]
    assert other["avif"]["size"] <= 9000
    free = exports_of(await service.post(again(answer), ("max_bytes", "1000000")))
    assert (free["jpeg"]["quality"], free["jpeg"]["width"]) == (85, 320)
