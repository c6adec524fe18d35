"""The default encoding of each format, from the settings."""

from service.imaging.formats import (
    FORMATS,
    TABLE,
    AvifEncoding,
    Encoding,
    Format,
    JpegEncoding,
    PngEncoding,
    WebpEncoding,
)
from service.settings import Settings


def default_encodings(settings: Settings) -> dict[Format, Encoding]:
    """An encoding for each export format, in the order of the table; a format without settings has its own defaults."""
    encodings = {name: encoding() for name in FORMATS if (encoding := TABLE[name].encoding)}
    return encodings | {
        "png": PngEncoding(settings.png_compression, settings.png_thorough, settings.png_palette),
        "jpeg": JpegEncoding(settings.jpeg_quality),
        "webp": WebpEncoding(settings.webp_quality, method=settings.webp_method),
        "avif": AvifEncoding(settings.avif_quality, settings.avif_speed),
    }
