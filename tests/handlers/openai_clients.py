"""The official OpenAI client, unmodified, on a service."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
from PIL import Image

from tests.helpers import Answer, Running, decoded

KEY = "a-key-of-this-service"
PROMPT = "My awesome video"


@asynccontextmanager
async def client_of(service: Running, url: str | None = None, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client that does not retry unless told to; by `url` it goes through a proxy."""
    settings: dict[str, Any] = {"api_key": KEY, "max_retries": 0} | options
    async with openai.AsyncOpenAI(base_url=f"{url or service.url}/v1", **settings) as client:
        yield client


def pictures(answer: Any) -> list[Image.Image]:
    return [decoded(base64.b64decode(each.b64_json, validate=True)) for each in answer.data]


def assert_error(answer: Answer, status: int, kind: str, code: str, param: str | None = None) -> None:
    """The one form of every error under /v1."""
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (status, "application/json")
    assert answer.headers["x-request-id"]
    assert answer.headers["x-should-retry"] in ("true", "false")
    error = answer.json["error"]
    assert set(answer.json) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (kind, code, param), error
    assert error["message"]
