import io
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from google import genai
from google.genai import types
from PIL import Image

KEY = "any-key-will-do"
MODEL = "gemini-nano-banana-2.1"

Connect = Callable[..., Awaitable[genai.Client]]
Serve = Callable[[web.Application], Awaitable[TestServer]]


def config(ratio: str | None = None, size: str | None = None) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(
        response_modalities=["IMAGE"],
        image_config=types.ImageConfig(aspect_ratio=ratio, image_size=size),
        automatic_continuation=False,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )


TALL = config("1:8", "1K")


async def ask(
    client: genai.Client, *parts: Any, config: types.GenerateContentConfig = TALL, model: str = MODEL
) -> types.GenerateContentResponse:
    contents = list(parts) or ["My awesome video"]
    return await client.aio.models.generate_content(model=model, contents=contents, config=config)


def pictures(reply: types.GenerateContentResponse) -> list[bytes]:
    return [part.inline_data.data for part in reply.parts or [] if part.inline_data and part.inline_data.data]


def drawn(reply: types.GenerateContentResponse) -> Image.Image:
    return Image.open(io.BytesIO(pictures(reply)[-1]))


def picture_bytes(size: tuple[int, int] = (64, 48), colour: str = "red", kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind, **options)
    return out.getvalue()
