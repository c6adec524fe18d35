"""The palettes of a GIF: exact where a patch has few colours, else fast octree and dithering.

A palette serves as many patches as it fits. That saves most of the time, because Pillow keeps the nearest entries that
it has found in a palette, and the bytes of the first palette, which serves the whole file.
"""

from dataclasses import dataclass

from PIL import Image, ImageChops, ImageStat

from service.imaging.patches import Patch

MOST_COLOURS = 256
# Where a palette is measured: at most so many pixels of a patch.
SAMPLE = 96, 54
# A palette fits if the mean square error is at most so many times that of the patch it was made for, and so much more.
FITTING, NEGLIGIBLE = 1.2, 2.0


@dataclass(frozen=True, slots=True)
class Indexed:
    """A P image, the RGB bytes of its palette, and the index of pixels that are not drawn."""

    image: Image.Image
    colours: bytes
    transparent: int | None

    @property
    def bits(self) -> int:
        """Of an index: a colour table has a power of two of entries, at least two."""
        return max(1, (max(len(self.colours) // 3, (self.transparent or 0) + 1) - 1).bit_length())

    @property
    def table(self) -> bytes:
        return self.colours.ljust(3 << self.bits, b"\0")


class Palettes:
    """Finds the palettes of successive patches; `animated`: of more than one."""

    def __init__(self, *, animated: bool) -> None:
        self._animated = animated
        self._known: list[tuple[Image.Image, float]] = []

    def indexed(self, patch: Patch) -> Indexed:
        """A patch in at most 256 colours, one of them transparent where not all is drawn."""
        image = _filled(patch)
        most = MOST_COLOURS if patch.drawn is None else MOST_COLOURS - 1
        if colours := image.getcolors(most):
            return _indexed(_exact(image), len(colours), patch.drawn)
        if patch.opaque and (colours := patch.image.getcolors(MOST_COLOURS)):
            return _indexed(_exact(patch.image), len(colours), None)
        if self._animated:
            most = MOST_COLOURS - 1
        palette = self._fitting(image, most)
        return _indexed(_dithered(image, palette), most, patch.drawn)

    def _fitting(self, image: Image.Image, most: int) -> Image.Image:
        """The first or the last palette if it fits the image, else a new one."""
        sample = image.resize((min(image.width, SAMPLE[0]), min(image.height, SAMPLE[1])), Image.Resampling.NEAREST)
        for palette, limit in self._known:
            if _error(sample, palette) <= limit:
                return palette
        palette = image.quantize(most, Image.Quantize.FASTOCTREE)
        self._known = [*self._known[:1], (palette, FITTING * _error(sample, palette) + NEGLIGIBLE)]
        return palette


def _filled(patch: Patch) -> Image.Image:
    """The patch's image with one of its drawn colours where it is not drawn."""
    box = patch.drawn and patch.drawn.getbbox()
    if not (patch.drawn and box):
        return patch.image
    top = patch.drawn.crop((0, box[1], patch.image.width, box[1] + 1)).getbbox() or box
    filled = Image.new("RGB", patch.image.size, patch.image.getpixel((top[0], box[1])))
    filled.paste(patch.image, mask=patch.drawn)
    return filled


def _exact(image: Image.Image) -> Image.Image:
    """An image of at most 256 colours with all of them: median cut splits them until each has its own entry."""
    return image.quantize(MOST_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _indexed(image: Image.Image, colours: int, drawn: Image.Image | None) -> Indexed:
    """The first `colours` entries of the palette; the next index where nothing is drawn."""
    if drawn:
        image.paste(colours, mask=ImageChops.invert(drawn))
    palette = bytes(image.getpalette() or ())[: 3 * colours]
    return Indexed(image, palette, colours if drawn else None)


def _dithered(image: Image.Image, palette: Image.Image) -> Image.Image:
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _error(image: Image.Image, palette: Image.Image) -> float:
    """The mean square error of a channel after dithering."""
    difference = ImageStat.Stat(ImageChops.difference(image, _dithered(image, palette).convert("RGB")))
    return sum(difference.sum2) / sum(difference.count)
