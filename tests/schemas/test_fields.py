"""Every field: the values that are accepted, and the errors for others, which cost nothing and leave no file."""

from dataclasses import replace
from typing import Any

import pytest

from service.budgets import MAX_BYTES
from service.errors import InvalidField, MissingField
from service.imaging.formats import JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.plan import Budget, Budgets, ExportPlan
from service.orders import Order
from service.schemas.fields import Fields
from service.schemas.requests import EXPORT_FIELDS, THUMBNAIL_FIELDS, read_export, read_order
from service.schemas.table import MAX_SCRIPT
from service.settings import Settings
from tests.conftest import MakeSettings, Serve
from tests.helpers import SCRIPT, QuickEmulator, Running, assert_problem, decoded, picture_bytes, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


def order(settings: Settings, **texts: str) -> Order:
    return read_order(Fields({"script": SCRIPT, **texts}), settings, "req_1", None)


def plan(settings: Settings, **texts: str) -> ExportPlan:
    return read_export(Fields(texts), settings)[0]


def encodings(settings: Settings, **texts: str) -> dict[str, Any]:
    return {each.format: each for each in read_export(Fields(texts), settings)[1]}


WHOLE_NUMBERS = {
    "width": (1, 8192),
    "height": (1, 8192),
    "jpeg_quality": (0, 100),
    "webp_quality": (0, 100),
    "avif_quality": (0, 100),
    "png_compression": (0, 9),
}
NOT_WHOLE_NUMBERS = ("-1", "+1", "1.0", "1_0", " 1", "1 ", "0x1", "1e1", "two", "٣", "１", "9" * 5000, "nan")

REFUSED_EVERYWHERE = [
    *((name, str(low - 1), f"from {low} to {high}") for name, (low, high) in WHOLE_NUMBERS.items()),
    *((name, str(high + 1), f"from {low} to {high}") for name, (low, high) in WHOLE_NUMBERS.items()),
    *(("width", text, "a whole number from 1 to 8192") for text in NOT_WHOLE_NUMBERS if len(text) < 1000),
    ("width", "100000", "from 1 to 8192"),
    ("fit", "fill", "cover, contain, stretch"),
    ("fit", "Cover", "cover, contain, stretch"),
    ("formats", "bmp", "png, jpeg, webp, avif and gif"),
    ("formats", "png,", "png, jpeg, webp, avif and gif"),
    ("formats", "png;webp", "png, jpeg, webp, avif and gif"),
    ("formats", ",", "png, jpeg, webp, avif and gif"),
    *(("blend", text, "from 0 to 1 with at most 4 decimals") for text in (
        "1.1", "1.0001", "2", "-0", "-0.1", "+0.5", "0.70001", "0,5", ".", "1e-1", "nan", "inf",
        "0.5.5", "٠", " 0.5", "00.5",
    )),
    *(("focus", text, "auto, or x,y such as 0.5,0.25, each from 0 to 1 with at most 4 decimals") for text in (
        ",", ",0.5", "0.5,", ".5,0.5", "0.5,.5", "1.,0.5", "0.5,1.", "0.5", "0.5,0.5,0.5", "0.5;0.5", "0.5 0.5",
        " 0.5,0.5", "0.5, 0.5", "0.5,0.5 ", "1.0001,0.5", "0.5,1.1", "2,0", "-0,0", "-0.1,0.5", "+0.5,0.5",
        "0.12345,0.5", "00.5,0.5", "1e-1,0.5", "nan,0.5", "0.5,inf", "٠,0.5", "０,0", "Auto", "centre", "auto,0",
    )),
    *(("max_bytes", text, f"a whole number from 1 to {MAX_BYTES}, or one for each of some formats") for text in (
        "0", "1000000001", "-1", "+1", "1.5", "1e6", "1_000", " 100", "100 ", "1k", "٣", "１", "ten", ",", "100,200",
        "png", "png:", "png:0", "png:1000000001", "png:-1", "png:1.5", "png:1:2", "png:1,", ",png:1", "png:1,100",
        "100,png:1", "png:1;jpeg:2", "png=1", "png:1 2", "png:１",
    )),
    *(("max_bytes", text, "is none of the requested formats, png, jpeg and webp") for text in (
        ":1", "avif:1", "png:1,avif:1", "gif:1", "image/png:1", "*:1",
    )),
    *(("max_bytes", text, "comes twice") for text in ("png:1,png:1", "jpg:1,jpeg:2", "png:1,webp:2,PNG:3")),
    *(("allow_resize", text, "true, false, 1, 0, on or off") for text in ("yes", "2", "t", " true")),
    ("matte", "white", "#ffffff"),
    ("matte", "#fff", "#ffffff"),
    ("alpha", "drop", "keep, flatten"),
    ("jpeg_subsampling", "4:1:1", "4:2:0, 4:2:2, 4:4:4"),
    ("webp_lossless", "maybe", "true, false"),
    *(("progressive", text, "true, false, 1, 0, on or off") for text in ("yes", "2", "t", "null", " true")),
]  # fmt: skip
REFUSED_FOR_THUMBNAILS = [
    *(("count", text, "from 1 to 4") for text in ("0", "5", "99", "two", "-1", "1.0", "１")),
    ("aspect_ratio", "16:10", "16:9"),
    ("aspect_ratio", "16x9", "16:9"),
    ("aspect_ratio", "0:9", "16:9"),
    ("aspect_ratio", "wide", "16:9"),
    ("image_size", "8K", "1K"),
    ("image_size", "1k", "1K"),
    *(
        ("model", text, "lower-case letters")
        for text in ("Gemini", "a/b", "../x", "a..b", "-a", "a" * 65, "a b", "modèle")
    ),
    ("reference", "maybe", "true, false"),
]


@on_one_loop
@pytest.mark.parametrize(("name", "text", "allowed"), REFUSED_EVERYWHERE + REFUSED_FOR_THUMBNAILS)
async def test_a_bad_value_is_refused_before_any_call(service: Running, name: str, text: str, allowed: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.thumbnails(upload(picture_bytes()), (name, text))
    body = assert_problem(answer, 422, "invalid_field", name, allowed)
    assert body["billed"] is False
    assert body["retryable"] is False


@on_one_loop
@pytest.mark.parametrize(("name", "text", "allowed"), REFUSED_EVERYWHERE)
async def test_exports_refuse_a_bad_value(service: Running, name: str, text: str, allowed: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.exports(upload(picture_bytes()), (name, text))
    assert_problem(answer, 422, "invalid_field", name, allowed)


@on_one_loop
@pytest.mark.parametrize("name", sorted({*THUMBNAIL_FIELDS} - {"script", "model"}))
async def test_a_value_of_5000_characters_is_refused_and_not_repeated(service: Running, name: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.thumbnails((name, "9" * 5000))
    assert len(assert_problem(answer, 422, "invalid_field", name)["detail"]) < 300


@on_one_loop
@pytest.mark.parametrize("script", ["", " ", "\n\t  \u3000", "\u2028"])
async def test_a_blank_script_is_refused(service: Running, script: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post("/api/thumbnails", ("script", script), upload(picture_bytes()))
    assert_problem(answer, 422, "missing_field", "script is required", "32000")


@on_one_loop
async def test_a_missing_script_is_refused(service: Running) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post("/api/thumbnails", ("count", "2"))
    assert_problem(answer, 422, "missing_field", "script is required")


@on_one_loop
@pytest.mark.parametrize("length", [MAX_SCRIPT + 1, 4 * MAX_SCRIPT, 4 * MAX_SCRIPT + 1, 1_000_000])
async def test_a_script_over_32000_code_points_is_refused(service: Running, length: int) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post("/api/thumbnails", ("script", "x" * length))
    assert_problem(answer, 422, "invalid_field", "script is too long", "32000")


@pytest.mark.parametrize("character", ["x", "é", "語", "😀"])
def test_a_script_is_measured_in_code_points(settings: Settings, character: str) -> None:
    script = character * MAX_SCRIPT
    assert order(settings, script=script).script == script
    with pytest.raises(InvalidField):
        order(settings, script=script + character)


def test_a_script_is_taken_verbatim(settings: Settings) -> None:
    script = "  <b>Zwei</b>\r\n\tTitel „für“ 😀 \x07 %s {x} </script>\n"
    assert order(settings, script=script).script == script


@on_one_loop
@pytest.mark.parametrize("name", ["colour", "image", "Width", "width[]", "script", ""])
async def test_exports_refuse_an_unknown_field(service: Running, name: str) -> None:
    fields = [("width", "8")] if name == "image" else [("width", "8"), (name, "1")]
    with service.nothing_spent_or_left():
        answer = await service.exports(*fields)
    if name == "image":
        assert_problem(answer, 422, "missing_field", "image is required")
    else:
        assert_problem(answer, 422, "unknown_field", repr(name), "allowed:", "width")


@on_one_loop
@pytest.mark.parametrize("name", ["colour", "base", "Script", "n", "provenance"])
async def test_thumbnails_refuse_an_unknown_field(service: Running, name: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.thumbnails((name, "1"))
    assert_problem(answer, 422, "unknown_field", repr(name), "allowed: script")


@on_one_loop
async def test_an_unknown_file_is_refused(service: Running) -> None:
    with service.nothing_spent_or_left():
        answer = await service.thumbnails(upload(picture_bytes(), "attachment"))
    assert_problem(answer, 422, "unknown_field", "'attachment'")


def test_the_defaults_are_the_contract(settings: Settings) -> None:
    got = order(settings)
    assert (got.aspect_ratio, got.count, got.image_size, got.reference) == ("16:9", 1, "1K", True)
    assert got.plan
    assert (got.plan.fit, got.plan.share, got.plan.matte) == ("cover", 7000, (255, 255, 255))
    assert encodings(settings) == {
        "png": PngEncoding(9),
        "jpeg": JpegEncoding(85, progressive=False),
        "webp": WebpEncoding(80),
    }


@pytest.mark.parametrize("name", sorted({*THUMBNAIL_FIELDS} - {"script"}))
def test_an_empty_value_counts_as_absent(settings: Settings, name: str) -> None:
    assert order(settings, **{name: ""}) == order(settings)


def test_the_settings_are_the_defaults_of_the_encodings(make_settings: MakeSettings) -> None:
    got = encodings(make_settings(png_compression=1, jpeg_quality=2, webp_quality=3))
    assert (got["png"].compression, got["jpeg"].quality, got["webp"].quality) == (1, 2, 3)


@pytest.mark.parametrize(("name", "bounds"), WHOLE_NUMBERS.items())
def test_the_bounds_of_whole_numbers_are_allowed(settings: Settings, name: str, bounds: tuple[int, int]) -> None:
    for value in (*bounds, bounds[1] - 1):
        read_export(Fields({name: str(value)}), settings)
        read_export(Fields({name: f"{value:08d}"}), settings)


@pytest.mark.parametrize("text", NOT_WHOLE_NUMBERS)
def test_whole_numbers_are_ascii_digits(settings: Settings, text: str) -> None:
    with pytest.raises(InvalidField, match="a whole number from 0 to 100"):
        read_export(Fields({"jpeg_quality": text}), settings)


def test_zero_is_a_quality_and_not_the_default(settings: Settings) -> None:
    got = encodings(settings, jpeg_quality="0", webp_quality="0", png_compression="0")
    assert (got["png"].compression, got["jpeg"].quality, got["webp"].quality) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "share"),
    [("0", 0), ("1", 10000), ("0.7", 7000), ("0.7000", 7000), (".5", 5000), ("1.", 10000), ("1.0000", 10000),
     ("0.0001", 1), ("0.9999", 9999), ("0.", 0), (".0", 0)],
)  # fmt: skip
def test_a_blend_is_exact_to_four_decimals(settings: Settings, text: str, share: int) -> None:
    assert plan(settings, blend=text).share == share


@pytest.mark.parametrize(
    ("text", "formats"),
    [("png", ["png"]), ("JPG", ["jpeg"]), ("jpeg,jpg, JPEG", ["jpeg"]), ("webp,png", ["png", "webp"]),
     (" Png , WebP,png ", ["png", "webp"]), ("webp,jpeg,png", ["png", "jpeg", "webp"])],
)  # fmt: skip
def test_formats_in_any_case_and_order_each_once(settings: Settings, text: str, formats: list[str]) -> None:
    assert list(encodings(settings, formats=text)) == formats


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("1", True), ("on", True), ("TRUE", True), ("On", True),
     ("false", False), ("0", False), ("off", False), ("False", False)],
)  # fmt: skip
def test_booleans(settings: Settings, text: str, value: bool) -> None:
    assert encodings(settings, progressive=text)["jpeg"].progressive is value
    assert order(settings, reference=text).reference is value


@pytest.mark.parametrize(
    ("text", "focus"),
    [("auto", "auto"), ("0,0", (0, 0)), ("1,1", (10000, 10000)), ("1.0,0.0", (10000, 0)), ("0.5,0.25", (5000, 2500)),
     ("0.0001,0.9999", (1, 9999)), ("1.0000,0.3", (10000, 3000))],
)  # fmt: skip
def test_a_focus_is_exact_to_four_decimals(settings: Settings, text: str, focus: Any) -> None:
    assert plan(settings, focus=text).focus == focus
    assert plan(settings, focus=text, fit="cover").focus == focus
    with pytest.raises(InvalidField, match=f"focus='{text}' is not allowed: only with fit=cover"):
        plan(settings, focus=text, fit="contain")
    with pytest.raises(InvalidField, match="only with fit=cover"):
        order(settings, focus=text, fit="stretch")


def test_without_a_focus_a_picture_is_cropped_at_its_centre(settings: Settings) -> None:
    assert plan(settings).focus is None
    assert plan(settings, focus="", fit="contain").focus is None


@pytest.mark.parametrize(
    ("text", "budgets"),
    [("1", Budgets(1)), ("1000000000", Budgets(1_000_000_000)), ("0000200000", Budgets(200_000)),
     ("png:200000", Budgets(each=(("png", 200_000),))),
     (" WebP : 5 ,jpg:07", Budgets(each=(("jpeg", 7), ("webp", 5))))],
)  # fmt: skip
def test_a_budget_for_every_format_or_for_some(settings: Settings, text: str, budgets: Budgets) -> None:
    assert plan(settings, max_bytes=text).budgets == budgets
    got = order(settings, max_bytes=text, allow_resize="on").plan
    assert got
    assert got.budgets == replace(budgets, may_resize=True)


def test_a_budget_holds_for_the_formats_that_are_asked_for(settings: Settings) -> None:
    budgets = plan(settings, max_bytes="avif:9", formats="avif,png", allow_resize="true").budgets
    assert (budgets.of("avif"), budgets.of("png")) == (Budget(9, may_resize=True), None)
    with pytest.raises(InvalidField, match="'webp' is none of the requested formats, png and avif"):
        plan(settings, max_bytes="webp:9", formats="avif,png")
    with pytest.raises(InvalidField, match=r"'jpeg' is none of the requested formats, avif$"):
        plan(settings, max_bytes="jpeg:9", formats="avif")


def test_without_a_budget_allow_resize_means_nothing(settings: Settings) -> None:
    assert plan(settings, allow_resize="true").budgets.of("png") is None


@pytest.mark.parametrize("text", ["keep", "generated"])
def test_the_provenance_of_an_uploaded_picture(settings: Settings, text: Any) -> None:
    assert plan(settings).provenance == "keep"
    assert plan(settings, provenance=text).provenance == text


@on_one_loop
@pytest.mark.parametrize("text", ["Keep", "none", "true", "generated "])
async def test_another_provenance_is_refused(service: Running, text: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.exports(upload(picture_bytes()), ("provenance", text))
    assert_problem(answer, 422, "invalid_field", "provenance", "keep, generated")


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_every_fit_is_taken(settings: Settings, fit: str) -> None:
    assert plan(settings, fit=fit).fit == fit


def test_the_fields_beyond_the_common_ones(settings: Settings) -> None:
    got = plan(settings, matte="#0a0B0c", alpha="keep")
    assert (got.matte, got.alpha) == ((10, 11, 12), "keep")
    encoded = encodings(
        settings, jpeg_subsampling="4:4:4", webp_lossless="on", formats="jpeg,webp,avif", avif_quality="0"
    )
    assert (encoded["jpeg"].subsampling, encoded["webp"].lossless) == ("4:4:4", True)
    assert encoded["avif"].quality == 0


@pytest.mark.parametrize("model", ["a", "gemini-9-flash-image", "0.1", "a" * 64, "imagen-4.0-generate-001"])
def test_a_model_outside_the_table_is_taken(settings: Settings, model: str) -> None:
    assert order(settings, model=model).model == model


def test_what_the_table_says_a_model_lacks_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidField, match=r"image_size='2K'.*1K"):
        order(settings, model="gemini-3.1-flash-lite-image", image_size="2K")
    with pytest.raises(InvalidField, match=r"aspect_ratio='1:8'.*16:9"):
        order(settings, model="gemini-3-pro-image", aspect_ratio="1:8")


def test_the_default_model_is_checked_too(make_settings: MakeSettings) -> None:
    settings = make_settings(gemini_model="gemini-3.1-flash-lite-image")
    with pytest.raises(InvalidField, match="image_size"):
        order(settings, image_size="4K")


def test_max_variations_bounds_the_count(make_settings: MakeSettings) -> None:
    settings = make_settings(max_variations=9)
    assert order(settings, count="9").count == 9
    with pytest.raises(InvalidField, match="from 1 to 9"):
        order(settings, count="10")


@pytest.mark.parametrize(
    ("texts", "size"),
    [
        ({}, (1280, 720)),
        ({"image_size": "4K"}, (1360, 765)),
        ({"width": "800"}, (800, 450)),
        ({"height": "450"}, (800, 450)),
        ({"width": "333"}, (333, 187)),
        ({"height": "333"}, (592, 333)),
        ({"width": "4000", "height": "10"}, (4000, 10)),
        ({"aspect_ratio": "9:16"}, (432, 768)),
        ({"aspect_ratio": "21:9"}, (1274, 546)),
    ],
)
def test_the_size_of_exports_of_a_1376x768_picture(settings: Settings, texts: dict[str, str], size: Any) -> None:
    got = order(settings, **texts).plan
    assert got
    assert got.frame.size((1376, 768)) == size


def test_a_side_that_would_be_too_long_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidField, match="8192"):
        order(settings, aspect_ratio="1:8", width="8192")


def test_every_field_is_parsed() -> None:
    assert {*EXPORT_FIELDS} < {*THUMBNAIL_FIELDS}


def test_a_script_is_required(settings: Settings) -> None:
    with pytest.raises(MissingField):
        read_order(Fields({}), settings, "req_1", None)


@on_one_loop
async def test_empty_fields_and_an_empty_file_of_a_browser_count_as_absent(service: Running) -> None:
    empty = [(name, "") for name in THUMBNAIL_FIELDS if name not in ("script", "formats")]
    answer = await service.thumbnails(*empty, ("formats", "jpeg"), upload(b"", filename=""))
    assert answer.status == 200, answer.body
    [variation] = answer.json["variations"]
    assert list(variation["exports"]) == ["jpeg"]
    assert variation["metadata"]["composited"] is False


@on_one_loop
async def test_the_encodings_reach_the_files(service: Running) -> None:
    picture = upload(picture_bytes((300, 200)))
    answer = await service.exports(picture, ("progressive", "on"), ("formats", "jpg"), ("width", "30"))
    assert answer.status == 200, answer.body
    export = answer.json["exports"]["jpeg"]
    got = decoded((await service.get(export["url"])).body)
    assert (got.format, got.size, got.info.get("progressive")) == ("JPEG", (30, 20), 1)


@on_one_loop
async def test_max_variations_of_the_service(serve: Serve) -> None:
    service = await serve(QuickEmulator(), max_variations=6)
    answer = await service.thumbnails(("count", "6"), ("formats", "jpeg"), ("width", "16"))
    assert [each["id"] for each in answer.json["variations"]] == [f"var-{number}" for number in range(1, 7)]
