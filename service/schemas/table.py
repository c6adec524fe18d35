"""The table of fields: the kind, the default and the meaning of each, for parsing as well as for the description."""

import re
from typing import Any, get_args

from service.gemini import models
from service.imaging.formats import FORMATS as FORMAT_NAMES
from service.imaging.formats import Subsampling, listed
from service.imaging.frame import MAX_SIDE
from service.imaging.plan import DEFAULT_SHARE, WHOLE_SHARE, Alpha, Animate, Fit, Provenance
from service.schemas.fields import Field
from service.schemas.kinds import (
    Boolean,
    ByteBudgets,
    Choice,
    Colour,
    FormatList,
    Pattern,
    Point,
    Share,
    Text,
    Whole,
)
from service.values import MODEL_NAME, MODEL_NAME_RULE

MAX_SCRIPT = 32_000  # characters

SCRIPT = Field(
    "script",
    Text(
        f"1 to {MAX_SCRIPT} characters that are not all blank",
        {"type": "string", "minLength": 1, "maxLength": MAX_SCRIPT, "pattern": r"\S"},
    ),
    f"What the pictures are about, at most {MAX_SCRIPT:,} characters; sent to Gemini verbatim",
    required=True,
)
ASPECT_RATIO = Field(
    "aspect_ratio",
    # A model outside the table may have others.
    Pattern(re.compile(r"[1-9][0-9]?:[1-9][0-9]?", re.ASCII), ", ".join(models.RATIOS)),
    f"One of {' '.join(models.RATIOS)}; not every model has the last four",
    default="16:9",
)
MODEL = Field(
    "model",
    Pattern(MODEL_NAME, MODEL_NAME_RULE),
    "A model of Gemini; one outside the table of models works, its price unknown",
    default=lambda settings: settings.gemini_model,
)
IMAGE_SIZE = Field(
    "image_size", Choice(models.SIZES), "The size that Gemini draws; 2K and 4K where the model has them", default="1K"
)
REFERENCE = Field(
    "reference", Boolean(), "`false`: the base is not sent to Gemini, only blended under the result", default=True
)

WIDTH = Field(
    "width",
    Whole(1, MAX_SIDE),
    "Pixels. With `height`, the export has exactly that size; alone, the height follows from the ratio. With neither,"
    " thumbnails have the asked ratio and a longer side of at most 1280, 2560 or 5120 pixels (1K, 2K, 4K); exports keep"
    " their own ratio, with a longer side of at most 1280 pixels, and are never enlarged. A size that follows from the"
    " picture's own ratio cuts nothing off",
)
HEIGHT = Field("height", Whole(1, MAX_SIDE), "Pixels, see `width`")
FIT: Field[Fit] = Field(
    "fit", Choice(get_args(Fit)), "`cover` crops, `contain` pads with the matte, `stretch` distorts", default="cover"
)
FOCUS = Field(
    "focus",
    Point(),
    "With `fit=cover`, where the picture is cropped: `x,y` from the top left, each from 0 to 1 with at most 4 decimals,"
    " is as near to the middle of the crop as the edges allow; `auto` finds where the picture has most detail. A base"
    " is always cropped at its centre",
    default="0.5,0.5",
)
BLEND = Field(
    "blend",
    Share(),
    "The picture's share over its base, 0 to 1 with at most 4 decimals; without a base it means nothing",
    default=DEFAULT_SHARE / WHOLE_SHARE,
)
FORMATS = Field(
    "formats", FormatList(), f"The formats of the exports, of {listed(FORMAT_NAMES, 'and')}, comma-separated",
    default=lambda settings: ",".join(settings.formats),
)  # fmt: skip
MAX_BYTES = Field(
    "max_bytes",
    ByteBudgets(),
    "The most bytes of a file: a number for every format, or a list such as `png:200000,webp:50000` for some of the"
    " requested ones. See [byte budgets](#byte-budgets)",
)
ALLOW_RESIZE = Field(
    "allow_resize",
    Boolean(),
    "`true`: a file that is too large at its lowest quality may have fewer pixels",
    default=False,
)
PNG_COMPRESSION = Field(
    "png_compression", Whole(0, 9), "0 (fastest) to 9 (smallest); pixels are always kept exactly",
    default=lambda settings: settings.png_compression,
)  # fmt: skip
JPEG_QUALITY = Field("jpeg_quality", Whole(0, 100), "0 to 100", default=lambda settings: settings.jpeg_quality)
JPEG_SUBSAMPLING: Field[Subsampling] = Field(
    "jpeg_subsampling", Choice(get_args(Subsampling)), "How coarse a JPEG's colours are", default="4:2:0"
)
PROGRESSIVE = Field("progressive", Boolean(), "`true`: a progressive JPEG", default=False)
WEBP_QUALITY = Field("webp_quality", Whole(0, 100), "0 to 100", default=lambda settings: settings.webp_quality)
WEBP_LOSSLESS = Field("webp_lossless", Boolean(), "`true`: a lossless WebP", default=False)
AVIF_QUALITY = Field(
    "avif_quality",
    Whole(0, 100),
    "0 to 100; above 16,777,216 pixels AVIF is left out with the warning `encode_failed`",
    default=lambda settings: settings.avif_quality,
)
MATTE = Field(
    "matte", Colour(), "The colour under transparency and around `contain`, `#rrggbb`",
    default=lambda settings: settings.matte,
)  # fmt: skip
ALPHA: Field[Alpha] = Field(
    "alpha",
    Choice(("keep", "flatten")),
    "`keep`: transparency is kept in PNG, WebP and AVIF; GIF is transparent where alpha is below 128",
    default="flatten",
)
PROVENANCE: Field[Provenance] = Field(
    "provenance",
    Choice(get_args(Provenance)),
    "`keep`: the exports are marked as generated if `image` or its base is; `generated`: they always are, see"
    " [provenance](#provenance)",
    default="keep",
)
ANIMATE: Field[Animate] = Field(
    "animate",
    Choice(get_args(Animate)),
    "`first`: of an animation its first frame is exported; `keep`: every frame, in WebP, AVIF, GIF and PNG (APNG), a"
    " JPEG has the first one. See [animations](#animations)",
    default="first",
)


def count_up_to(most: int) -> Field[int]:
    """`count`, bounded by MAX_VARIATIONS."""
    return Field("count", Whole(1, most), "How many variations, 1 to `MAX_VARIATIONS`", default=1)


EXPORTS: tuple[Field[Any], ...] = (
    WIDTH, HEIGHT, FIT, FOCUS, BLEND, FORMATS, MAX_BYTES, ALLOW_RESIZE, JPEG_QUALITY, WEBP_QUALITY, AVIF_QUALITY,
    PNG_COMPRESSION, PROGRESSIVE, MATTE, ALPHA, JPEG_SUBSAMPLING, WEBP_LOSSLESS,
)  # fmt: skip
PICTURE = (*EXPORTS, PROVENANCE, ANIMATE)


def thumbnails(max_variations: int) -> tuple[Field[Any], ...]:
    """The fields of a request for thumbnails."""
    return (SCRIPT, ASPECT_RATIO, count_up_to(max_variations), MODEL, IMAGE_SIZE, REFERENCE, *EXPORTS)
