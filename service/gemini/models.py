"""The table of models: the aspect ratios and sizes that each supports, and the price of a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from math import gcd, log
from operator import truediv

DEFAULT_MODEL = "gemini-nano-banana-2.1"
SIZES = ("1K", "2K", "4K")

# The longer side, in pixels, of an export without a size of its own.
LONGEST: Mapping[str, int] = {"1K": 1280, "2K": 2560, "4K": 5120}

# The ratios that every model has.
COMMON_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
RATIOS = (*COMMON_RATIOS, "1:4", "4:1", "1:8", "8:1")

_ENLARGEMENT: Mapping[str, int] = {"1K": 1, "2K": 2, "4K": 4}
_PIXELS_1K: Mapping[str, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:4": (896, 1200),
    "4:5": (928, 1152),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
    "1:4": (512, 2048),
    "1:8": (384, 3072),
}

_RAW_METADATA_BYTES = 256 * 1024
# The largest picture of each size: a PNG of 3 bytes per pixel that did not compress.
RAW_BYTES: Mapping[str, int] = {
    size: 3 * scale**2 * max(width * height for width, height in _PIXELS_1K.values()) + _RAW_METADATA_BYTES
    for size, scale in _ENLARGEMENT.items()
}


@dataclass(frozen=True, slots=True)
class Model:
    """One model; `prices` in USD and `tokens` billed are per picture of each size, as published on `as_of`."""

    name: str
    ratios: tuple[str, ...]
    sizes: tuple[str, ...]
    prices: Mapping[str, float]
    tokens: Mapping[str, int]
    as_of: date


_AS_OF = date(2026, 11, 22)

MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model(
            DEFAULT_MODEL,
            ratios=RATIOS,
            sizes=SIZES,
            prices={"1K": 0.0336, "2K": 0.050, "4K": 0.113},
            tokens={"1K": 1120, "2K": 1680, "4K": 3780},
            as_of=_AS_OF,
        ),
        Model(
            "gemini-3.1-flash-lite-image",
            ratios=RATIOS,
            sizes=("1K",),
            prices={"1K": 0.0336},
            tokens={"1K": 1120},
            as_of=_AS_OF,
        ),
        Model(
            "gemini-3-pro-image",
            ratios=COMMON_RATIOS,
            sizes=SIZES,
            prices={"1K": 0.134, "2K": 0.134, "4K": 0.24},
            tokens={"1K": 1120, "2K": 1120, "4K": 2000},
            as_of=_AS_OF,
        ),
    )
}

# Shut down by October 2026: Google answers 404.
_RETIRED = ("gemini-3.1-flash-image", "gemini-2.5-flash-image", "imagen-4.0-*")


def find(name: str) -> Model | None:
    """The model's row; None for a model that is not in the table, which may work nevertheless."""
    return MODELS.get(name)


def nearest_ratio(name: str, width: int, height: int) -> str:
    """The aspect ratio nearest to `width` x `height` of those that the model has; of an unknown one, of the common."""
    row = find(name)
    ratios = row.ratios if row else COMMON_RATIOS
    return min(ratios, key=lambda ratio: abs(log(width / height) - log(truediv(*ratio_terms(ratio)))))


def largest_size(name: str, wanted: str) -> str:
    """The largest of the model's sizes that is not larger than `wanted`."""
    row = find(name)
    allowed = SIZES[: SIZES.index(wanted) + 1]
    return [size for size in allowed if row is None or size in row.sizes][-1]


def is_retired(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _RETIRED)


def price(name: str, image_size: str) -> float | None:
    """USD for one picture; None, never 0, if it is not in the table."""
    model = find(name)
    return model.prices.get(image_size) if model else None


def raw_bytes(image_size: str) -> int:
    """The largest picture of this size, in bytes; for an unknown size, the largest of all."""
    return RAW_BYTES.get(image_size, max(RAW_BYTES.values()))


def ratio_terms(ratio: str) -> tuple[int, int]:
    """`a:b` in lowest terms: `21:9` is (7, 3)."""
    a, b = map(int, ratio.split(":"))
    divisor = gcd(a, b)
    return a // divisor, b // divisor


def pixels(ratio: str, image_size: str) -> tuple[int, int]:
    """The width and height that Gemini draws; raises KeyError for a ratio or size outside RATIOS and SIZES."""
    scale = _ENLARGEMENT[image_size]
    if ratio in _PIXELS_1K:
        width, height = _PIXELS_1K[ratio]
    else:
        height, width = _PIXELS_1K[":".join(reversed(ratio.split(":")))]
    return width * scale, height * scale
