"""The focus of a crop, from a form to the published files."""

from functools import cache
from typing import Any

import pytest
from PIL import Image

from tests.helpers import Answer, Running, decoded, upload
from tests.test_budgets import again, as_png, exports_of, noise_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

BANDS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
SQUARE = (("width", "100"), ("height", "100"), ("formats", "png"))


@cache
def bands() -> bytes:
    """A PNG three times as wide as high: red, green and blue from left to right."""
    picture = Image.new("RGB", (300, 100))
    for number, colour in enumerate(BANDS):
        picture.paste(colour, (100 * number, 0, 100 * number + 100, 100))
    return as_png(picture)


async def colour(service: Running, answer: Answer) -> Any:
    """The colour in the middle of the one export."""
    assert answer.status == 200, answer.body
    [export] = exports_of(answer).values()
    picture = decoded((await service.get(export["url"])).body).convert("RGB")
    return picture.getpixel((picture.width // 2, picture.height // 2))


@pytest.mark.parametrize(
    ("focus", "band"), [((), 1), ((("focus", "0,0"),), 0), ((("focus", "1,1"),), 2), ((("focus", "0.5,0.1"),), 1)]
)
async def test_a_picture_is_cropped_around_its_focus(service: Running, focus: tuple[Any, ...], band: int) -> None:
    assert await colour(service, await service.exports(upload(bands()), *SQUARE, *focus)) == BANDS[band]


async def test_automatic_focus_finds_the_detail(service: Running) -> None:
    picture = Image.new("RGB", (300, 100), "white")
    picture.paste(noise_of((60, 60)), (220, 20))
    answer = await service.exports(upload(as_png(picture)), *SQUARE, ("focus", "auto"))
    cropped = decoded((await service.get(exports_of(answer)["png"]["url"])).body).convert("L")
    detail = cropped.point([255] * 250 + [0] * 6).getbbox()
    assert detail
    assert (detail[2] - detail[0], detail[3] - detail[1]) == (60, 60)


async def test_a_base_is_cropped_at_its_centre_whatever_the_focus(service: Running) -> None:
    fields = (*SQUARE, ("focus", "0,0"), ("blend", "0"))
    assert await colour(service, await service.exports(upload(bands()), upload(bands(), "base"), *fields)) == BANDS[1]
    answer = await service.thumbnails(upload(bands()), *fields)
    assert await colour(service, answer) == BANDS[1]
    assert await colour(service, await service.post(again(answer), ("focus", "1,1"))) == BANDS[1]
