"""Draws a thumbnail of a script."""

import io

from PIL import Image, ImageDraw, ImageFont


def draw(script: str, size: tuple[int, int], variant: str, reference: bytes | None = None) -> bytes:
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    ImageDraw.Draw(picture).text((20, 20), script[:40] + variant, font=ImageFont.load_default(40))
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()
