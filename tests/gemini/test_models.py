import pickle

import pytest

from service.gemini import models
from service.server.admission import VARIATION_BYTES


def test_the_default_is_in_the_table() -> None:
    assert models.find(models.DEFAULT_MODEL) is models.MODELS["gemini-nano-banana-2.1"]


@pytest.mark.parametrize("model", models.MODELS.values(), ids=lambda model: model.name)
def test_every_row_is_complete(model: models.Model) -> None:
    assert set(model.ratios) <= set(models.RATIOS)
    assert set(model.sizes) <= set(models.SIZES)
    assert set(model.sizes) == set(model.prices) == set(model.tokens)
    assert all(usd > 0 for usd in model.prices.values())
    assert not models.is_retired(model.name)
    assert pickle.loads(pickle.dumps(model)) == model


def test_the_published_prices() -> None:
    assert models.price("gemini-nano-banana-2.1", "1K") == 0.0336
    assert models.price("gemini-nano-banana-2.1", "4K") == 0.113
    assert models.price("gemini-3-pro-image", "2K") == 0.134


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("gemini-9-next", "1K"), ("gemini-3.1-flash-lite-image", "4K"), ("gemini-nano-banana-2.1", "8K")],
)
def test_an_unknown_price_is_none_and_never_zero(name: str, image_size: str) -> None:
    assert models.price(name, image_size) is None


def test_a_model_outside_the_table_is_not_found() -> None:
    assert models.find("gemini-9-next") is None


def test_ratios_of_the_rows() -> None:
    assert len(models.RATIOS) == len(set(models.RATIOS)) == 14
    assert len(models.MODELS["gemini-nano-banana-2.1"].ratios) == 14
    assert len(models.MODELS["gemini-3-pro-image"].ratios) == 10
    assert "8:1" not in models.MODELS["gemini-3-pro-image"].ratios


@pytest.mark.parametrize("name", ["gemini-3.1-flash-image", "gemini-2.5-flash-image", "imagen-4.0-ultra-generate-001"])
def test_shut_down_models_are_retired(name: str) -> None:
    assert models.is_retired(name)
    assert models.find(name) is None


@pytest.mark.parametrize(
    ("ratio", "terms"), [("16:9", (16, 9)), ("21:9", (7, 3)), ("1:1", (1, 1)), ("8:1", (8, 1)), ("4:8", (1, 2))]
)
def test_ratios_are_reduced_to_lowest_terms(ratio: str, terms: tuple[int, int]) -> None:
    assert models.ratio_terms(ratio) == terms


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ("1:1", (1024, 1024)),
        ("2:3", (848, 1264)),
        ("3:2", (1264, 848)),
        ("4:3", (1200, 896)),
        ("5:4", (1152, 928)),
        ("9:16", (768, 1376)),
        ("16:9", (1376, 768)),
        ("21:9", (1584, 672)),
        ("1:4", (512, 2048)),
        ("4:1", (2048, 512)),
        ("1:8", (384, 3072)),
        ("8:1", (3072, 384)),
    ],
)
def test_the_pixels_of_each_ratio_and_size(ratio: str, size: tuple[int, int]) -> None:
    width, height = size
    assert models.pixels(ratio, "1K") == (width, height)
    assert models.pixels(ratio, "2K") == (2 * width, 2 * height)
    assert models.pixels(ratio, "4K") == (4 * width, 4 * height)


@pytest.mark.parametrize("ratio", models.RATIOS)
def test_the_pixels_come_close_to_the_ratio(ratio: str) -> None:
    a, b = models.ratio_terms(ratio)
    width, height = models.pixels(ratio, "1K")
    assert width / height == pytest.approx(a / b, rel=0.02)


@pytest.mark.parametrize(("ratio", "image_size"), [("7:5", "1K"), ("16:9", "1k"), ("16:9", "8K")])
def test_no_pixels_outside_the_table(ratio: str, image_size: str) -> None:
    with pytest.raises(KeyError):
        models.pixels(ratio, image_size)


@pytest.mark.parametrize("image_size", models.SIZES)
def test_raw_bytes_are_enough_for_a_picture_that_did_not_compress(image_size: str) -> None:
    sides = [models.pixels(ratio, image_size) for ratio in models.RATIOS]
    noise = max(height * (1 + 3 * width) for width, height in sides)
    assert noise * 1.001 < models.raw_bytes(image_size) < VARIATION_BYTES
    assert models.raw_bytes(image_size) <= models.raw_bytes("8K")
