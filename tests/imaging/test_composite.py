import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.imaging.composite import composite

PAIRS = list(product(range(256), repeat=2))
PICTURE = Image.frombytes("L", (256, 256), bytes(p for p, _ in PAIRS)).convert("RGB")
BASE = Image.frombytes("L", (256, 256), bytes(b for _, b in PAIRS)).convert("RGB")


def mean(picture: int, base: int, share: int) -> int:
    return (share * picture + (10_000 - share) * base + 5_000) // 10_000


@pytest.mark.parametrize("share", [0, 1, 2_500, 3_333, 5_000, 7_000, 9_999, 10_000])
def test_every_pair_of_levels_has_its_exact_mean(share: int) -> None:
    expected = bytes(mean(picture, base, share) for picture, base in PAIRS)
    blended = composite(PICTURE, BASE, share)
    assert blended.mode == "RGB"
    assert [band.tobytes() for band in blended.split()] == [expected] * 3


@given(share=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_any_share_is_exact(share: int) -> None:
    expected = bytes(mean(picture, base, share) for picture, base in PAIRS)
    assert composite(PICTURE, BASE, share).getchannel("G").tobytes() == expected


@given(seed=st.integers(0, 2**32), width=st.integers(1, 40), height=st.integers(1, 200), share=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_any_size_is_exact(seed: int, width: int, height: int, share: int) -> None:
    size = width * height * 3
    # A seed, because hypothesis cannot draw that many levels at once.
    levels = random.Random(seed)
    picture, base = levels.randbytes(size), levels.randbytes(size)
    blended = composite(
        Image.frombytes("RGB", (width, height), picture), Image.frombytes("RGB", (width, height), base), share
    )
    assert blended.tobytes() == bytes(mean(p, b, share) for p, b in zip(picture, base, strict=True))


def test_the_blended_pictures_are_unchanged() -> None:
    before = PICTURE.tobytes(), BASE.tobytes()
    composite(PICTURE, BASE, 7_000)
    assert (PICTURE.tobytes(), BASE.tobytes()) == before
