"""The work of every contender: pictures such as Gemini sends, and the form that asks for their exports."""

import io
from dataclasses import dataclass

from PIL import Image

SIZE = (1280, 720)
SHARE = 0.7
# The size that Gemini draws for 16:9 at 1K.
DRAWN = (1376, 768)
BOUNDARY = "----image-export-bench"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True, slots=True)
class Original:
    """One picture to export, a PNG."""

    name: str
    data: bytes


def originals(most: int) -> tuple[list[Original], list[str]]:
    """At most `most` photographs and illustrations, evenly chosen; and a line for each source that is missing."""
    from bench.pictures import gather

    pictures, missing = gather()
    usable = [picture for picture in pictures if picture.kind != "interface"]
    chosen = [usable[index * len(usable) // most] for index in range(most)] if len(usable) > most else usable
    return [Original(picture.name, png_bytes(_drawn(picture.image))) for picture in chosen], missing


def drawings(count: int) -> list[Original]:
    """Drawings of the emulator, for machines that cannot fetch the originals."""
    from service.emulator.drawing import draw

    return [Original(f"drawing-{number}", draw("A lighthouse at dawn", DRAWN, str(number))) for number in range(count)]


def _drawn(image: Image.Image) -> Image.Image:
    return image.resize(DRAWN, Image.Resampling.LANCZOS)


def png_bytes(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()


def form(image: bytes | None, base: bytes | None = None, **texts: str) -> bytes:
    """A multipart body."""
    files = {name: data for name, data in (("image", image), ("base", base)) if data}
    parts = [(f'form-data; name="{name}"', text.encode()) for name, text in texts.items()]
    parts += [(f'form-data; name="{name}"; filename="{name}.png"', data) for name, data in files.items()]
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    )
    return body + f"--{BOUNDARY}--\r\n".encode()
