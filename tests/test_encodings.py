"""Settings as encodings."""

from service.encodings import default_encodings
from service.imaging.formats import FORMATS, AvifEncoding, GifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.settings import Settings


def test_there_is_an_encoding_for_every_format_of_exports() -> None:
    assert tuple(default_encodings(Settings())) == FORMATS


def test_encodings_are_as_the_settings_say() -> None:
    settings = Settings(
        png_compression=3,
        png_thorough=True,
        png_palette=True,
        jpeg_quality=4,
        webp_quality=5,
        webp_method=6,
        avif_quality=7,
        avif_speed=8,
    )
    assert tuple(default_encodings(settings).values()) == (
        PngEncoding(3, thorough=True, palette=True),
        JpegEncoding(4),
        WebpEncoding(5, method=6),
        AvifEncoding(7, speed=8),
        GifEncoding(),
    )
