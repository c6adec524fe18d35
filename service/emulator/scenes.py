"""The scenes behind the title: simple landscapes and patterns, composed around a focus."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Palette:
    top: Colour
    bottom: Colour
    light: Colour
    far: Colour
    near: Colour
    accent: Colour


PALETTES = (
    Palette((48, 25, 82), (255, 128, 96), (255, 226, 150), (134, 56, 108), (33, 16, 58), (255, 214, 10)),
    Palette((8, 44, 94), (96, 200, 214), (255, 250, 220), (26, 104, 148), (4, 26, 56), (255, 209, 102)),
    Palette((18, 66, 66), (222, 232, 160), (255, 247, 196), (58, 124, 98), (8, 38, 36), (255, 236, 110)),
    Palette((92, 38, 196), (255, 128, 196), (255, 242, 206), (156, 66, 190), (46, 14, 88), (110, 255, 220)),
    Palette((112, 42, 28), (252, 196, 106), (255, 243, 200), (196, 98, 54), (66, 24, 20), (255, 240, 120)),
    Palette((28, 52, 116), (196, 228, 250), (255, 255, 255), (92, 144, 202), (16, 36, 84), (140, 255, 244)),
    Palette((10, 10, 40), (84, 32, 138), (196, 242, 255), (56, 40, 124), (6, 6, 26), (0, 245, 212)),
    Palette((26, 12, 24), (214, 62, 44), (255, 208, 104), (122, 28, 44), (24, 8, 16), (255, 196, 20)),
    Palette((36, 116, 200), (196, 240, 206), (255, 252, 190), (76, 172, 132), (12, 62, 66), (255, 248, 120)),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A canvas to draw on; `focus` is the position of the light or subject, outside of the title."""

    canvas: Image.Image
    palette: Palette
    focus: Point
    rng: Random

    @property
    def width(self) -> int:
        return self.canvas.width

    @property
    def height(self) -> int:
        return self.canvas.height

    @property
    def unit(self) -> float:
        """A tenth of the shorter side, in pixels."""
        return min(self.canvas.size) / 10

    def pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.canvas)

    def sky(self, top: Colour | None = None, bottom: Colour | None = None) -> None:
        self.canvas.paste(gradient(self.canvas.size, top or self.palette.top, bottom or self.palette.bottom))

    def glow(self, centre: Point, radius: float, colour: Colour, strength: float) -> None:
        mask = ImageOps.invert(Image.radial_gradient("L")).point(
            lambda level: int(max(0, level - 74) / 181 * 255 * strength)
        )
        side = max(2, round(2 * radius))
        corner = (round(centre[0] - radius), round(centre[1] - radius))
        self.canvas.paste(colour, corner, mask.resize((side, side)))

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        x, y = centre
        self.pen().ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def ridge(self, base: float, height: float, rough: float, colour: Colour) -> None:
        """A silhouette across the picture, `height` high, around `base`; a larger `rough` is more jagged."""
        waves = [(self.rng.uniform(0.7, 1.6) * 2**k, self.rng.uniform(0, 6.3), rough**k) for k in range(6)]
        span = max(self.width, self.height)
        step = max(2, span // 400)
        outline = [
            (x, base - height * sum(a * math.sin(f * x / span * 6.3 + p) for f, p, a in waves))
            for x in range(0, self.width + step, step)
        ]
        self.pen().polygon([(0, self.height), *outline, (self.width, self.height)], fill=colour)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Mix two colours, with a `share` (0-1) of `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), top, bottom)


def hills(scene: Scene) -> None:
    """Layered hills under a low sun."""
    palette, unit = scene.palette, scene.unit
    scene.sky()
    scene.glow(scene.focus, 5.5 * unit, palette.light, 0.9)
    scene.disc(scene.focus, 1.1 * unit, palette.light)
    rough = scene.rng.uniform(0.42, 0.56)
    layers = 5
    for layer in range(layers):
        share = layer / (layers - 1)
        base = scene.height * (0.56 + 0.36 * share)
        colour = mix(mix(palette.far, palette.bottom, 0.45 * (1 - share)), palette.near, share)
        scene.ridge(base, scene.height * (0.07 - 0.03 * share), rough * (1 - 0.3 * share), colour)


def sea(scene: Scene) -> None:
    """A sun at the horizon, its reflection, and waves."""
    palette, unit, pen = scene.palette, scene.unit, scene.pen()
    horizon = round(min(0.56 * scene.height, scene.focus[1] + 0.14 * scene.height))
    scene.sky()
    sun = (scene.focus[0], horizon - 0.5 * unit)
    scene.glow(sun, 6 * unit, palette.light, 0.85)
    scene.disc(sun, 1.6 * unit, palette.light)
    water = gradient((scene.width, scene.height - horizon), mix(palette.far, palette.bottom, 0.4), palette.near)
    scene.canvas.paste(water, (0, horizon))
    depth = scene.height - horizon
    for row in range(24):
        near = (row + 0.5) / 24
        half = unit * (1.5 - near) * scene.rng.uniform(0.3, 1.3)
        x = sun[0] + unit * scene.rng.uniform(-0.6, 0.6)
        y = horizon + depth * near
        pen.line(
            (x - half, y, x + half, y), fill=mix(palette.light, palette.far, near * 0.6), width=max(1, round(unit / 9))
        )
    for layer in range(3):
        scene.ridge(
            scene.height * (0.82 + 0.07 * layer), unit * 0.25, 0.35, mix(palette.far, palette.near, 0.55 + 0.2 * layer)
        )


def city(scene: Scene) -> None:
    """A skyline at night with lit windows."""
    palette, unit = scene.palette, scene.unit
    scene.sky(mix(palette.top, palette.near, 0.3))
    scene.glow(scene.focus, 5 * unit, palette.light, 0.7)
    scene.disc(scene.focus, 1.2 * unit, palette.light)
    for layer, tall in enumerate((0.46, 0.38, 0.28)):
        colour = mix(mix(palette.far, palette.bottom, 0.3), palette.near, layer / 2)
        _houses(scene, tall * scene.height, colour, lit=layer > 0)


def _houses(scene: Scene, tall: float, colour: Colour, lit: bool) -> None:
    pen, unit, left = scene.pen(), scene.unit, -scene.rng.uniform(0, scene.unit)
    while left < scene.width:
        width = unit * scene.rng.uniform(0.7, 1.5)
        top = scene.height - tall * scene.rng.uniform(0.45, 1)
        pen.rectangle((left, top, left + width, scene.height), fill=colour)
        if scene.rng.random() < 0.3:
            middle = left + width / 2
            pen.line((middle, top - unit / 2, middle, top), fill=colour, width=max(1, round(unit / 12)))
        if lit:
            _windows(scene, (left, top, left + width, scene.height))
        left += width + unit * scene.rng.choice((0, 0, 0.15))


def _windows(scene: Scene, house: tuple[float, float, float, float]) -> None:
    pen, pane = scene.pen(), scene.unit * 0.12
    left, top, right, bottom = house
    y = top + pane * 1.5
    while y < bottom:
        x = left + pane * 1.2
        while x < right - pane * 1.8:
            if scene.rng.random() < 0.42:
                pen.rectangle(
                    (x, y, x + pane, y + pane * 1.3), fill=mix(scene.palette.accent, scene.palette.light, 0.5)
                )
            x += pane * 2
        y += pane * 2.8


def space(scene: Scene) -> None:
    """A ringed planet among stars."""
    palette, unit, rng = scene.palette, scene.unit, scene.rng
    scene.sky(mix(palette.near, (0, 0, 0), 0.35), mix(palette.top, palette.near, 0.4))
    for colour in (palette.bottom, palette.far, palette.accent):
        spot = (rng.uniform(0, scene.width), rng.uniform(0, scene.height))
        scene.glow(spot, unit * rng.uniform(6, 10), colour, 0.28)
    for _ in range(min(700, scene.width * scene.height // 9000)):
        star = (rng.uniform(0, scene.width), rng.uniform(0, scene.height))
        scene.disc(
            star,
            unit * rng.choice((0.015, 0.02, 0.02, 0.045)),
            mix((255, 255, 255), palette.bottom, rng.random() / 2),
        )
    _planet(scene, 2.5 * unit)


def _planet(scene: Scene, radius: float) -> None:
    x, y = scene.focus
    scene.glow(scene.focus, radius * 1.9, scene.palette.bottom, 0.6)
    side = round(2 * radius)
    globe = gradient((side, side), scene.palette.light, scene.palette.far)
    bands = ImageDraw.Draw(globe)
    for _ in range(5):
        top = scene.rng.uniform(0, side)
        bands.rectangle(
            (0, top, side, top + side * 0.05), fill=mix(scene.palette.bottom, scene.palette.far, top / side)
        )
    shade = gradient((side, side), (0, 0, 0), scene.palette.near).rotate(90)
    globe = Image.blend(globe, shade, 0.35).rotate(24, Image.Resampling.BICUBIC, expand=False)
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
    scene.canvas.paste(globe, (round(x - radius), round(y - radius)), mask)
    ring = ImageDraw.Draw(scene.canvas)
    for step, width in ((1.5, 0.12), (1.72, 0.05)):
        box = (x - radius * step, y - radius * step * 0.28, x + radius * step, y + radius * step * 0.28)
        ring.arc(box, -12, 192, fill=scene.palette.accent, width=max(1, round(radius * width)))


def bokeh(scene: Scene) -> None:
    """Blurred lights (bokeh)."""
    palette, unit, rng = scene.palette, scene.unit, scene.rng
    scene.sky(palette.near, mix(palette.top, palette.far, 0.5))
    scene.glow(scene.focus, 7 * unit, palette.bottom, 0.75)
    for _ in range(round(26 * (scene.width * scene.height / (10 * unit) ** 2) ** 0.5)):
        near_focus = rng.random() < 0.5
        x = rng.gauss(scene.focus[0], 3 * unit) if near_focus else rng.uniform(0, scene.width)
        y = rng.gauss(scene.focus[1], 3 * unit) if near_focus else rng.uniform(0, scene.height)
        lights(scene, (x, y), unit * rng.uniform(0.3, 1.3), rng.uniform(0.16, 0.5))


def lights(scene: Scene, centre: Point, radius: float, strength: float) -> None:
    """A translucent disc with a brighter rim."""
    side = max(4, round(2 * radius))
    mask = Image.new("L", (side, side), 0)
    level = round(255 * strength)
    ImageDraw.Draw(mask).ellipse(
        (0, 0, side - 1, side - 1), fill=round(level * 0.7), outline=level, width=max(1, side // 24)
    )
    colour = scene.rng.choice((scene.palette.accent, scene.palette.light, scene.palette.bottom))
    scene.canvas.paste(colour, (round(centre[0] - radius), round(centre[1] - radius)), mask)


def burst(scene: Scene) -> None:
    """Rays from the focus, with confetti."""
    palette, unit, rng, (x, y) = scene.palette, scene.unit, scene.rng, scene.focus
    scene.sky(palette.bottom, mix(palette.bottom, palette.far, 0.6))
    reach, rays, turn = scene.width + scene.height, rng.choice((14, 16, 18, 22)), rng.uniform(0, 6.3)
    for ray in range(rays):
        start, end = (turn + 6.2832 * (ray + part) / rays for part in (0, 0.5))
        corners = [(x, y), *((x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in (start, end))]
        scene.pen().polygon(corners, fill=mix(palette.far, palette.top, ray % 3 / 6))
    scene.glow(scene.focus, 7 * unit, palette.light, 0.95)
    for size, colour in ((1.9, palette.near), (1.7, palette.accent), (1.2, palette.light)):
        scene.disc(scene.focus, size * unit, colour)
    for _ in range(40):
        angle, far = rng.uniform(0, 6.3), unit * rng.uniform(2.4, 9)
        spot = (x + far * math.cos(angle), y + far * math.sin(angle))
        colour = rng.choice((palette.accent, palette.light, palette.near))
        scene.pen().regular_polygon(
            (*spot, unit * rng.uniform(0.08, 0.26)), rng.choice((3, 4, 5)), rng.randrange(360), colour
        )


SCENES: dict[Callable[[Scene], None], str] = {
    hills: "mountain hill hike hiking trail forest nature camp camping travel tree garden climb walk farm wild road",
    sea: "sea ocean beach surf surfing island sail boat fish swim wave water summer holiday lake river coast sunset",
    city: "city town street business office money finance startup code software house home work shop market software",
    space: "space star planet moon rocket galaxy science physics future ai robot universe sky night astronomy tech",
    bokeh: "music party light love wedding christmas song film cinema coffee dance concert photo camera dream art",
    burst: "top best win game sport review challenge fast tips secret awesome epic new how why ultimate great fun",
}


def scene_for(words: set[str], rng: Random) -> Callable[[Scene], None]:
    """The scene whose keywords match the words of the script best, else a random one."""
    singular = words | {word.removesuffix("s") for word in words}
    hits = {scene: len(singular & set(keywords.split())) for scene, keywords in SCENES.items()}
    most = max(hits.values())
    return rng.choice([scene for scene, count in hits.items() if count == most])
