import io

import pytest
from PIL import Image

from service.emulator.drawing import draw
from service.emulator.lettering import choose_font, is_rtl, set_title, title_of
from service.emulator.scenes import SCENES
from service.gemini.models import RATIOS, pixels
from tests.emulator.helpers import picture_bytes

SMALL = (344, 192)


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("ratio", RATIOS)
def test_every_ratio_is_drawn_at_its_size_in_colour(ratio: str) -> None:
    size = tuple(side // 4 for side in pixels(ratio, "1K"))
    picture = opened(draw("My awesome video", (size[0], size[1]), "0"))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", size)
    assert all(high - low > 40 for low, high in picture.getextrema())  # type: ignore[misc]  # pairs, of several bands


@pytest.mark.parametrize("keywords", SCENES.values(), ids=[scene.__name__ for scene in SCENES])
def test_every_scene_can_be_asked_for(keywords: str) -> None:
    assert opened(draw(keywords, SMALL, "0")).size == SMALL


def test_equal_arguments_draw_equal_bytes_and_others_do_not() -> None:
    assert draw("My awesome video", SMALL, "0") == draw("My awesome video", SMALL, "0")
    assert len({draw("My awesome video", SMALL, str(variant)) for variant in range(16)}) == 16


@pytest.mark.parametrize(
    "script",
    [
        "",
        " \n\t\u200b\n",
        "日本語のタイトル",
        "مرحبا بالعالم",
        "שלום עולם, hello",
        "🎬🔥👨‍👩‍👧‍👦",
        "ไทย हिन्दी",
        "a\u0301\u0302\u0303" * 200,
        "x" * 32_000,
        "word " * 6_000,
        "\x00\x07\u202e\u2066\U000e0041",
    ],
    ids=[
        "empty",
        "blank",
        "japanese",
        "arabic",
        "hebrew",
        "emoji",
        "thai and hindi",
        "accents",
        "one long word",
        "many words",
        "controls",
    ],
)
@pytest.mark.parametrize("size", [(344, 192), (96, 768), (768, 96)])
def test_any_script_is_drawn(script: str, size: tuple[int, int]) -> None:
    assert opened(draw(script, size, "0")).size == size


def test_a_reference_is_the_background() -> None:
    picture = opened(draw("My awesome video", SMALL, "0", picture_bytes((400, 300), "lime")))
    red, green, blue = picture.resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]  # a tuple, of several bands
    assert green > 1.5 * max(red, blue)


@pytest.mark.parametrize(
    "reference", [b"no picture", picture_bytes()[:60], picture_bytes(kind="BMP")], ids=["text", "cut", "bmp"]
)
def test_an_unreadable_reference_is_ignored(reference: bytes) -> None:
    assert draw("My awesome video", SMALL, "0", reference) == draw("My awesome video", SMALL, "0")


@pytest.mark.parametrize(
    ("script", "title"),
    [
        ("My awesome video", "My awesome video"),
        ("\n\n# Heading: Café\nand a body", "Heading: Café"),
        ("A sentence that stands alone. " + "And much more of it. " * 9, "A sentence that stands alone."),
        ("and so on " * 30, "and so on and so on and so on and so on and so on and so on and so on…"),
        ("x" * 100, "x" * 72 + "…"),
        ("tabs\tand\u00a0spaces", "tabs and spaces"),
        ("\n \n", ""),
    ],
)
def test_the_title_is_the_first_line_with_text(script: str, title: str) -> None:
    assert title_of(script) == title


@pytest.mark.parametrize("text", ["Größe – “naïve”…", "Как приготовить борщ", "Ελλάδα", "שלום עולם", "مرحبا"])
def test_the_font_of_the_package_has_most_alphabets(text: str) -> None:
    shown, font = choose_font(text)
    assert shown == text
    assert font.getname() == ("DejaVu Sans", "Condensed Bold")


def test_characters_without_a_glyph_are_left_out() -> None:
    assert choose_font("Party \U000effff tonight")[0] == "Party tonight"


@pytest.mark.parametrize(("text", "rtl"), [("2 שלום", True), ("مرحبا", True), ("Hi שלום", False), ("12!", False)])
def test_direction_comes_from_the_first_letter(text: str, rtl: bool) -> None:
    assert is_rtl(text) is rtl


@pytest.mark.parametrize(
    "text", ["Hi", "My awesome video", "Seven days alone in the Dolomites with one tent", "y" * 72]
)
@pytest.mark.parametrize(("width", "height"), [(800, 500), (330, 1200), (2000, 280)])
def test_a_title_fits_its_box(text: str, width: int, height: int) -> None:
    _, font = choose_font(text)
    title = set_title(text, font, width, height, smallest=20)
    assert title.leading * len(title.lines) <= height
    assert all(title.font.getlength(line) <= width * 1.02 for line in title.lines)
    assert "".join(title.lines).replace(" ", "") == text.replace(" ", "")


def test_a_reference_that_is_no_picture_is_replaced_by_a_scene_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert draw("The sea", (320, 180), "1", b"no picture") == draw("The sea", (320, 180), "1")
    assert "a reference cannot be opened (UnidentifiedImageError)" in caplog.text
