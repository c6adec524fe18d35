"""Draws a thumbnail for a script: a scene and the title. Deterministic: equal arguments draw equal pictures."""

import io
import logging
import re
from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from service.emulator.lettering import Title, choose_font, is_rtl, set_title, title_of
from service.emulator.scenes import PALETTES, Colour, Palette, Scene, gradient, lights, mix, scene_for
from service.imaging.formats import TABLE

log = logging.getLogger(__name__)

# Scenes are drawn with this many pixels and scaled, for smooth edges and for the time that a 4K picture takes.
_CANVAS_PIXELS = 4_200_000
# A larger scale is not visible in the picture.
_MAX_SCALE = 4
_WATERMARK = "emulator"
_ANCHORS = {"left": "la", "center": "ma", "right": "ra"}


@dataclass(frozen=True, slots=True)
class Composition:
    """The box of the title (left, top, right, bottom) and the focus of the scene, as fractions of the picture."""

    box: tuple[float, float, float, float]
    focus: tuple[float, float]
    align: Literal["left", "center"]
    shade: Literal["left", "right", "bottom"]


_WIDE = (
    Composition((0.06, 0.12, 0.64, 0.88), (0.81, 0.36), "left", "left"),
    Composition((0.40, 0.12, 0.95, 0.88), (0.20, 0.36), "left", "right"),
    Composition((0.06, 0.44, 0.94, 0.90), (0.68, 0.26), "left", "bottom"),
)
_SQUARE = (
    Composition((0.07, 0.48, 0.93, 0.90), (0.66, 0.27), "left", "bottom"),
    Composition((0.07, 0.48, 0.93, 0.90), (0.50, 0.27), "center", "bottom"),
    Composition((0.07, 0.48, 0.93, 0.90), (0.30, 0.25), "left", "bottom"),
)
_STRIP = (
    Composition((0.03, 0.12, 0.74, 0.88), (0.86, 0.40), "left", "left"),
    Composition((0.27, 0.12, 0.95, 0.88), (0.13, 0.40), "left", "right"),
)
_COLUMN = (
    Composition((0.07, 0.52, 0.93, 0.92), (0.50, 0.27), "center", "bottom"),
    Composition((0.07, 0.34, 0.93, 0.78), (0.50, 0.19), "center", "bottom"),
)


def draw(script: str, size: tuple[int, int], variant: str, reference: bytes | None = None) -> bytes:
    """A PNG of `size`. Each `variant` is a different picture; a readable `reference` becomes the background."""
    rng = Random(f"{variant}\n{script}")  # noqa: S311 - has to be deterministic
    words = set(re.findall(r"\w+", script.lower()[:4000]))
    composition = rng.choice(_compositions(size))
    palette = rng.choice(PALETTES)
    photo = _opened(reference) if reference else None
    if photo:
        canvas = _photo_canvas(photo, _canvas_size(size), palette, rng)
    else:
        canvas = Image.new("RGB", _canvas_size(size))
        scene = Scene(canvas, palette, (composition.focus[0] * canvas.width, composition.focus[1] * canvas.height), rng)
        scene_for(words, rng)(scene)
    picture = canvas.resize(size, Image.Resampling.BICUBIC)
    _shade(picture, composition, mix(palette.near, (0, 0, 0), 0.4))
    _draw_title(picture, title_of(script), composition, palette)
    _draw_watermark(picture)
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=3)
    return out.getvalue()


def _compositions(size: tuple[int, int]) -> tuple[Composition, ...]:
    ratio = size[0] / size[1]
    if ratio > 2.6:
        return _STRIP
    if ratio >= 1.2:
        return _WIDE
    return _SQUARE if ratio > 0.45 else _COLUMN


def _canvas_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(_MAX_SCALE, (_CANVAS_PIXELS / (size[0] * size[1])) ** 0.5)
    return round(size[0] * scale), round(size[1] * scale)


def _opened(reference: bytes) -> Image.Image | None:
    try:
        picture = Image.open(io.BytesIO(reference), formats=[row.pillow for row in TABLE.values() if row.reader])
        picture.draft("RGB", (2000, 2000))
        return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # Pillow raises almost any exception for invalid bytes
        log.warning("a reference cannot be opened (%s): a scene is drawn instead", type(error).__name__)
        return None


def _photo_canvas(photo: Image.Image, size: tuple[int, int], palette: Palette, rng: Random) -> Image.Image:
    """The reference as background: cropped at random, tinted, with lights in front."""
    half = (size[0] // 2, size[1] // 2)
    closeness = rng.uniform(0, 0.08)
    fitted = ImageOps.fit(photo, half, bleed=closeness, centering=(rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65)))
    tinted = Image.blend(fitted, gradient(half, palette.top, palette.bottom), rng.uniform(0.16, 0.3))
    canvas = tinted.filter(ImageFilter.GaussianBlur(1.5)).resize(size)
    scene = Scene(canvas, palette, (0, 0), rng)
    for _ in range(9):
        spot = (rng.uniform(0, size[0]), rng.uniform(0, size[1]))
        lights(scene, spot, scene.unit * rng.uniform(0.3, 1.1), rng.uniform(0.1, 0.3))
    return canvas


def _shade(picture: Image.Image, composition: Composition, colour: Colour) -> None:
    """Darken the area behind the title."""
    ramp = Image.linear_gradient("L").point(lambda level: round((level / 255) ** 1.6 * 200))
    mask = ramp.rotate({"bottom": 0, "left": -90, "right": 90}[composition.shade])
    picture.paste(colour, (0, 0), mask.resize(picture.size))


def _draw_title(picture: Image.Image, text: str, composition: Composition, palette: Palette) -> None:
    shown, font = choose_font(text)
    if not shown:
        return
    width, height = picture.size
    left, top, right, bottom = (
        round(share * side) for share, side in zip(composition.box, (width, height) * 2, strict=True)
    )
    bar = max(3, min(width, height) // 70)
    title = set_title(shown, font, right - left, bottom - top - 3 * bar, smallest=max(10, min(width, height) / 14))
    align = "right" if is_rtl(shown) else composition.align
    x = {"left": left, "center": (left + right) / 2, "right": right}[align]
    spare = bottom - top - 3 * bar - title.leading * len(title.lines)
    y = top + (spare if composition.shade == "bottom" else spare / 2)
    start = x - {"left": 0, "center": 5, "right": 10}[align] * bar
    ImageDraw.Draw(picture).rounded_rectangle((start, y, start + 10 * bar, y + bar), bar / 2, fill=palette.accent)
    _draw_lines(picture, title, (x, y + 3 * bar), _ANCHORS[align], palette)


def _draw_lines(picture: Image.Image, title: Title, place: tuple[float, float], anchor: str, palette: Palette) -> None:
    """Draw the lines with outline and shadow, the longest in the accent colour."""
    pen = ImageDraw.Draw(picture)
    dark = mix(palette.near, (0, 0, 0), 0.55)
    stroke = max(1, title.font.size / 18)
    drop = max(1, title.font.size / 22)
    longest = max(title.lines, key=len) if len(title.lines) > 1 else ""
    x, y = place
    for number, line in enumerate(title.lines):
        at = (x, y + number * title.leading)
        pen.text((at[0] + drop, at[1] + drop), line, dark, title.font, anchor, stroke_width=stroke)
        fill = palette.accent if line == longest else (255, 255, 255)
        pen.text(at, line, fill, title.font, anchor, stroke_width=stroke, stroke_fill=dark)


def _draw_watermark(picture: Image.Image) -> None:
    """Draw a watermark, so that the picture cannot be mistaken for one of Gemini."""
    size = max(11, min(picture.size) / 34)
    _, font = choose_font(_WATERMARK)
    small = font.font_variant(size=size)
    pen = ImageDraw.Draw(picture, "RGBA")
    right, bottom = picture.width - size * 0.8, picture.height - size * 0.8
    box = (right - small.getlength(_WATERMARK) - size * 1.1, bottom - size * 1.6, right, bottom)
    pen.rounded_rectangle(box, size * 0.8, fill=(0, 0, 0, 120))
    pen.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), _WATERMARK, (255, 255, 255, 210), small, "mm")
