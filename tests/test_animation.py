"""Animations through /api/exports, over HTTP and in Python: every frame or the first, limits, warnings, refusals."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from blockbuster import BlockBuster
from PIL import Image, ImageSequence

from service.exports import ImageExportService
from service.imaging.compose import composed
from service.imaging.probe import probe
from tests.animations import BLUE, COLOURS, GREEN, RED, WHITE, Shown, animation, hidden_default, long_gif, shown
from tests.conftest import Serve, settings_in
from tests.helpers import Field, Running, assert_problem, picture_bytes, upload
from tests.imaging.animations import Film, Layer, apng, gif, plain, webp
from tests.imaging.pictures import chunk

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORMATS = ("png", "jpeg", "webp", "avif", "gif")
MOVING = ("png", "webp", "avif", "gif")
KEEP = ("animate", "keep")
ALL = ("formats", ",".join(FORMATS))


# The second frame reaches beyond the canvas, to the right and downwards.
BEYOND = Film(
    (32, 18), [Layer(plain((32, 18), (*RED, 255))), Layer(plain((32, 18), (*BLUE, 255)), left=2, top=2)], plays=0
)


async def kept(service: Running, data: bytes, *fields: Field) -> dict[str, Any]:
    """The answer to an export of every frame, in every format unless the fields name some."""
    named = any(not isinstance(field, tuple) or field[0] == "formats" for field in fields)
    answer = await service.exports(upload(data), KEEP, *(() if named else (ALL,)), *fields)
    assert answer.status == 200, answer.body
    return dict(answer.json)


async def files(service: Running, answer: dict[str, Any]) -> dict[str, Shown]:
    return {name: shown((await service.get(export["url"])).body) for name, export in answer["exports"].items()}


def close_to(colours: Any) -> Any:
    return [pytest.approx(colour, abs=12) for colour in colours]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_every_frame_is_in_every_format_but_jpeg(service: Running, kind: str) -> None:
    answer = await kept(service, animation(kind, duration=[100, 50, 70], plays=3))
    assert list(answer["exports"]) == list(FORMATS)
    assert answer["metadata"]["frames"] == 3
    assert {name: export["frames"] for name, export in answer["exports"].items()} == {
        **dict.fromkeys(MOVING, 3),
        "jpeg": 1,
    }
    made = await files(service, answer)
    for name in MOVING:
        assert made[name].colours == close_to(COLOURS), name
        assert made[name].durations == [100, 50, 70], name
    assert made["jpeg"].colours == close_to([RED])
    # Pillow reads a GIF's extension as it stands, and no count from AVIF.
    assert {name: made[name].loop for name in ("png", "webp", "gif")} == {"png": 3, "webp": 3, "gif": 2}
    assert [(each["code"], each["format"]) for each in answer["warnings"]] == [("loop_ignored", "avif")]
    assert "3 times" in answer["warnings"][0]["detail"]


async def test_a_gif_is_downloaded_as_one(service: Running) -> None:
    export = (await kept(service, animation("GIF"), ("formats", "gif")))["exports"]["gif"]
    assert (export["format"], export["content_type"], export["quality"], export["colors"]) == (
        "GIF",
        "image/gif",
        None,
        None,
    )
    assert export["file_path"].endswith(".gif")
    download = await service.get(export["url"])
    assert (download.headers["Content-Type"], download.body[:6]) == ("image/gif", b"GIF89a")
    assert len(download.body) == export["size"]


@pytest.mark.parametrize(
    ("plays", "loops", "warned"),
    [(0, {"gif": 0, "webp": 0, "png": 0}, False), (1, {"gif": None, "webp": 1, "png": 1}, True)],
)
async def test_the_number_of_plays_is_kept(
    service: Running, plays: int, loops: dict[str, int | None], warned: bool
) -> None:
    answer = await kept(service, animation("GIF", plays=plays))
    made = await files(service, answer)
    assert {name: made[name].loop for name in loops} == loops
    assert [each["code"] for each in answer["warnings"]] == ["loop_ignored"] * warned


async def test_the_loop_is_not_ignored_where_no_avif_moves(service: Running) -> None:
    assert (await kept(service, animation("GIF", plays=1), ("formats", "gif,webp")))["warnings"] == []
    assert (await kept(service, animation("GIF", [RED], plays=1)))["warnings"] == []


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_without_keep_the_first_frame_is_exported_with_a_warning(service: Running, kind: str) -> None:
    for fields in ((), (("animate", "first"),)):
        answer = (await service.exports(upload(animation(kind)), ALL, *fields)).json
        assert [(each["code"], each["format"]) for each in answer["warnings"]] == [("animation_ignored", None)]
        assert (answer["metadata"]["frames"], {each["frames"] for each in answer["exports"].values()}) == (3, {1})
        for name, file in (await files(service, answer)).items():
            assert file.colours == close_to([RED]), name


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_one_frame_is_a_still(service: Running, kind: str) -> None:
    answer = await kept(service, animation(kind, [BLUE]))
    assert answer["metadata"]["frames"] == 1
    assert {export["frames"] for export in answer["exports"].values()} == {1}
    for name, file in (await files(service, answer)).items():
        assert file.colours == close_to([BLUE]), name


async def test_a_still_may_be_kept_too(service: Running) -> None:
    answer = await kept(service, picture_bytes((64, 36), "blue"))
    assert (answer["metadata"]["frames"], answer["warnings"]) == (1, [])
    assert {export["frames"] for export in answer["exports"].values()} == {1}


async def test_a_default_image_that_is_no_frame_is_left_out(service: Running) -> None:
    answer = await kept(service, hidden_default())
    made = await files(service, answer)
    assert answer["metadata"]["frames"] == 3
    assert made["jpeg"].colours == close_to([RED])
    assert all(made[name].colours == close_to(COLOURS) for name in MOVING)
    first = (await service.exports(upload(hidden_default()), ALL)).json
    for name, file in (await files(service, first)).items():
        assert file.colours == close_to([WHITE]), name


async def test_the_base_lies_under_every_frame(service: Running) -> None:
    base = upload(picture_bytes((64, 36), "white"), "base")
    answer = await kept(service, animation("GIF"), base, ("blend", "0.5"), ALL)
    assert (answer["metadata"]["composited"], answer["warnings"]) == (True, [])
    made = await files(service, answer)
    for name in MOVING:
        assert made[name].colours == close_to([(255, 128, 128), (128, 255, 128), (128, 128, 255)]), name


async def test_an_animated_base_is_its_first_frame_without_a_warning(service: Running) -> None:
    base = upload(animation("GIF", [WHITE, RED]), "base")
    answer = await kept(service, animation("WEBP"), base, ("blend", "0"), ALL)
    assert answer["warnings"] == []
    for name, file in (await files(service, answer)).items():
        assert set(file.colours) == {WHITE}, name


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
async def test_every_frame_has_the_asked_size(service: Running, fit: str) -> None:
    answer = await kept(service, animation("GIF"), ("width", "40"), ("height", "40"), ("fit", fit), ALL)
    for name, file in (await files(service, answer)).items():
        assert file.size == (40, 40), name
    assert {(export["width"], export["height"]) for export in answer["exports"].values()} == {(40, 40)}
    assert answer["metadata"]["normalized_to"] == [40, 40]


async def test_transparency_is_kept_where_it_is_asked_for(service: Running) -> None:
    clear = animation("WEBP", [(*RED, 255), (0, 0, 0, 0), (*BLUE, 255)], lossless=True)
    over_matte = await files(service, await kept(service, clear, ("matte", "#00ff00"), ALL))
    assert over_matte["gif"].colours == close_to([RED, GREEN, BLUE])
    answer = await kept(service, clear, ("alpha", "keep"), ALL)
    for name in MOVING:
        data = (await service.get(answer["exports"][name]["url"])).body
        assert alphas(data) == [255, 0, 255], name


def alphas(data: bytes) -> list[Any]:
    """The alpha of each frame; Pillow shows what frames before left under the transparency of a GIF."""
    if data.startswith(b"GIF"):
        moving = probe(data, 10**6).animation
        assert moving
        return [image.convert("RGBA").getchannel("A").getpixel((9, 9)) for image in composed(moving)]
    with Image.open(io.BytesIO(data)) as image:
        return [frame.convert("RGBA").getchannel("A").getpixel((9, 9)) for frame in ImageSequence.Iterator(image)]


async def test_the_focus_of_the_first_frame_holds_for_all(service: Running) -> None:
    # A chequered square on the left of the first frame, on the right of the second.
    chequers = Image.effect_noise((40, 40), 200).convert("RGB")
    first, second = Image.new("RGB", (120, 40), GREEN), Image.new("RGB", (120, 40), BLUE)
    first.paste(chequers, (0, 0))
    second.paste(chequers, (80, 0))
    answer = await kept(
        service, saved(first, second), ("width", "40"), ("height", "40"), ("focus", "auto"), ("formats", "png")
    )
    [made] = (await files(service, answer)).values()
    assert made.colours[1] == BLUE


def saved(first: Image.Image, *others: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    first.save(out, "WEBP", save_all=True, append_images=others, duration=100, lossless=True, **options)
    return out.getvalue()


async def test_a_broken_profile_is_told_once(service: Running) -> None:
    data = animation("WEBP", icc_profile=b"no profile")
    answer = await kept(service, data)
    assert [(each["code"], each["format"]) for each in answer["warnings"]] == [("profile_ignored", None)]
    made = await files(service, answer)
    assert made["webp"].colours == close_to(COLOURS)


@pytest.mark.parametrize("budget", ["100000", "webp:50000", "webp:50000,png:9"])
async def test_a_budget_and_every_frame_are_refused_together(service: Running, budget: str) -> None:
    for data in (animation("GIF"), picture_bytes()):
        assert_problem(await service.exports(upload(data), KEEP, ("max_bytes", budget)), 422, "invalid_field")
    empty = await service.exports(upload(picture_bytes()), KEEP, ("max_bytes", ""))
    assert empty.status == 200


@pytest.mark.parametrize("value", ["Keep", "all", "true", "first "])
async def test_another_value_is_refused(service: Running, value: str) -> None:
    answer = await service.exports(upload(picture_bytes()), ("animate", value))
    assert_problem(answer, 422, "invalid_field")
    assert "first, keep" in answer.json["detail"]


async def test_only_uploads_can_be_exported_frame_by_frame(service: Running) -> None:
    assert_problem(await service.thumbnails(KEEP), 422, "unknown_field")


async def refused(service: Running, data: bytes, code: str, *fields: Field) -> str:
    """The detail of a refusal; a picture is exported afterwards, by the same worker."""
    answer = await service.exports(upload(data), KEEP, *fields)
    assert_problem(answer, 422, code)
    await works(service)
    return str(answer.json["detail"])


async def works(service: Running) -> None:
    answer = await service.exports(upload(picture_bytes()), ("formats", "png"))
    assert answer.status == 200


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def _limited(serve_all: Serve) -> Running:
    return await serve_all(max_animation_frames=4, max_animation_pixels=3 * 64 * 36)


@pytest.fixture
def limited(_limited: Running, unblocked: BlockBuster) -> Running:
    return _limited


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_an_animation_at_the_limit_is_exported_and_one_above_is_not(limited: Running, kind: str) -> None:
    small = ("formats", "gif")
    assert (await kept(limited, animation(kind), small))["exports"]["gif"]["frames"] == 3
    wider = await refused(limited, animation(kind, size=(65, 36)), "too_many_pixels", ("width", "10"))
    assert wider == "3 frames of 65 x 36 have 7,020 pixels; at most 6,912 are allowed"
    larger = await refused(limited, animation(kind), "too_many_pixels", ("width", "66"))
    assert larger == "3 frames of 66 x 37 have 7,326 pixels; at most 6,912 are allowed"
    four = [*COLOURS, WHITE]
    assert (await kept(limited, animation(kind, four, (8, 8)), small))["exports"]["gif"]["frames"] == 4
    five = await refused(limited, animation(kind, [*four, RED], (8, 8)), "too_many_pixels")
    assert five == "the animation has 5 frames; at most 4 are allowed"
    # Neither limit concerns the first frame alone.
    assert (await limited.exports(upload(animation(kind, [*four, RED], (80, 80))), small)).status == 200


async def test_an_animation_is_refused_before_a_frame_is_decoded(limited: Running) -> None:
    broken = long_gif(5).replace(b"\x02\x02\x44\x01\x00", b"\x02\x02\xff\xff\x00")
    await refused(limited, broken, "too_many_pixels")
    await refused(limited, broken.replace(broken[13 + 6 :], broken[13 + 6 :][:24]) + b";", "undecodable")


async def test_a_still_has_no_limit_of_animations(limited: Running) -> None:
    assert (await kept(limited, picture_bytes((800, 600)), ("formats", "gif")))["metadata"]["frames"] == 1


async def test_a_thousand_frames_are_allowed_and_one_more_is_not(service: Running) -> None:
    assert (await kept(service, long_gif(1000), ("formats", "jpeg")))["metadata"]["frames"] == 1000
    detail = await refused(service, long_gif(1001), "too_many_pixels")
    assert detail == "the animation has 1,001 frames; at most 1,000 are allowed"


@pytest.mark.parametrize("frames", [100_000, 32_769])
async def test_a_file_in_too_many_parts_is_refused_however_it_is_exported(service: Running, frames: int) -> None:
    # Each frame is an extension and an image.
    data = long_gif(frames)
    await refused(service, data, "too_costly")
    assert_problem(await service.exports(upload(data)), 422, "too_costly")


@pytest.mark.parametrize("announced", [1, 2, 0xFFFFFFFF])
async def test_frames_are_counted_and_not_believed(service: Running, announced: int) -> None:
    data = animation("PNG")
    at = data.index(b"acTL") - 4
    control = chunk(b"acTL", announced.to_bytes(4, "big") + bytes(4))
    answer = await kept(service, data[:at] + control + data[at + 20 :], ("formats", "gif"))
    assert (answer["metadata"]["frames"], answer["exports"]["gif"]["frames"]) == (3, 3)


async def test_a_frame_that_cannot_be_decoded_refuses_the_animation(service: Running) -> None:
    for kind in ("GIF", "PNG", "WEBP"):
        data = animation(kind, size=(320, 180))
        await refused(service, data[: len(data) - len(data) // 6], "undecodable")


@pytest.mark.parametrize("write", [apng, webp])
async def test_a_frame_beyond_its_canvas_refuses_an_apng_and_a_webp(
    service: Running, write: Callable[[Film], bytes]
) -> None:
    await refused(service, write(BEYOND), "undecodable")


async def test_a_frame_beyond_its_canvas_is_not_counted_by_the_size_that_it_claims(service: Running) -> None:
    data = apng(Film((1, 1), [Layer(plain((1, 1), (*colour, 255))) for colour in (RED, BLUE)]))
    at = data.rindex(b"fcTL")
    control = chunk(b"fcTL", data[at + 4 : at + 8] + (2**31 - 1).to_bytes(4) + data[at + 12 : at + 30])
    await refused(service, data[: at - 4] + control + data[at + 34 :], "undecodable")


async def test_what_a_frame_of_a_gif_has_beyond_the_canvas_is_cut_off(service: Running) -> None:
    answer = await kept(service, gif(BEYOND), ("formats", "png,gif"))
    for name, file in (await files(service, answer)).items():
        assert (file.size, file.colours) == ((32, 18), [RED, BLUE]), name


async def test_durations_of_nothing_and_of_ages_are_kept(service: Running) -> None:
    answer = await kept(service, animation("GIF", duration=[0, 10, 655_350]), ("formats", "gif,webp,png"))
    for name, file in (await files(service, answer)).items():
        assert file.durations == [0, 10, 655_350], name


async def test_python_exports_every_frame(tmp_path: Path) -> None:
    async with ImageExportService(settings_in(tmp_path, export_workers=1)) as exports:
        made = await exports.process_and_export_image(animation("GIF"), animate="keep", formats=["gif", "jpeg"])
        assert {name: export["frames"] for name, export in made.items()} == {"gif": 3, "jpeg": 1}
        assert made.warnings == []
        first = await exports.process_and_export_image(animation("GIF"), formats=["gif"])
        assert (first["gif"]["frames"], [each.code for each in first.warnings]) == (1, ["animation_ignored"])
        for arguments in ({"animate": "all"}, {"animate": "keep", "max_bytes": 9}, {"animate": ""}):
            with pytest.raises(ValueError, match="animate"):
                await exports.process_and_export_image(animation("GIF"), **arguments)
        with pytest.raises(TypeError, match="animate must be "):
            await exports.process_and_export_image(animation("GIF"), animate=True)  # type: ignore[arg-type]
