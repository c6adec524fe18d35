"""The studio page: headers, configuration, and that it obeys its Content-Security-Policy."""

import json
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from service.app import create_app
from service.errors import GeminiTimeout
from service.schemas.table import MAX_SCRIPT
from service.server.lifespan import keyring
from service.settings import Settings

MODULES = ("api", "card", "order", "page", "picture", "preview", "run", "submission")

AiohttpClient = Callable[..., Awaitable[TestClient[Any, Any]]]
Studio = Callable[..., Awaitable[TestClient[Any, Any]]]


@pytest.fixture
def studio(aiohttp_client: AiohttpClient, tmp_path: Path) -> Studio:
    """Starts a server with the given settings, past their validation."""

    async def start(**settings: object) -> TestClient[Any, Any]:
        base = Settings(storage_dir=tmp_path, gemini_emulator=True, api_keys=(), gemini_model="gemini-3-pro-image")
        app = create_app(base.model_copy(update=settings))
        # The page needs neither workers nor Gemini, so only the keys are read.
        app.cleanup_ctx.clear()
        app.cleanup_ctx.append(keyring)
        return await aiohttp_client(app)

    return start


class Page(HTMLParser):
    """The tags of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)

    @property
    def config(self) -> dict[str, Any]:
        (text,) = self.scripts
        config: dict[str, Any] = json.loads(text)
        return config


async def read_page(client: TestClient[Any, Any]) -> Page:
    response = await client.get("/")
    return Page(await response.text())


async def test_page_is_html_under_a_policy_that_forbids_inline_code(studio: Studio) -> None:
    response = await (await studio()).get("/")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-Id"]


async def test_page_has_nothing_that_the_policy_would_block(studio: Studio) -> None:
    page = await read_page(await studio())
    for tag, attributes in page.tags:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        if tag == "script":
            assert "src" in attributes or attributes["type"] == "application/json"


async def test_files_that_the_page_names_are_served_from_here(studio: Studio) -> None:
    client = await studio()
    page = await read_page(client)
    named = {link for _, attributes in page.tags for key in ("src", "href") if (link := attributes.get(key))}
    assert named == {"studio/studio.css", "studio/studio.js", "studio/favicon.svg"}
    for name in named:
        response = await client.get(f"/{name}")
        assert response.status == 200
        assert await response.read()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("studio.css", "text/css"), ("studio.js", "text/javascript"), ("favicon.svg", "image/svg+xml")]
    + [
        (f"{name}.js", "text/javascript")
        for name in ("api", "card", "order", "page", "picture", "preview", "run", "submission")
    ],
)
async def test_file_has_its_type_and_the_policy(studio: Studio, name: str, kind: str) -> None:
    response = await (await studio()).get(f"/studio/{name}")
    assert response.content_type == kind
    assert response.charset == "utf-8"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")


async def test_labels_and_descriptions_point_at_fields_that_exist(studio: Studio) -> None:
    page = await read_page(await studio())
    ids = [name for _, attributes in page.tags if (name := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    pointers = [attributes.get(key) for _, attributes in page.tags for key in ("for", "aria-describedby")]
    assert {pointer for pointer in pointers if pointer} <= set(ids)


async def test_the_configuration_has_the_limits_of_the_service(studio: Studio) -> None:
    page = await read_page(await studio(max_variations=7, max_upload_bytes=1234, output_retention_days=2.5))
    config = page.config
    assert (config["emulator"], config["needs_key"]) == (True, False)
    assert (config["max_variations"], config["max_upload_bytes"], config["max_script"]) == (7, 1234, MAX_SCRIPT)
    assert (config["output_retention_days"], config["sse_heartbeat_seconds"]) == (2.5, 15)
    assert config["titles"]["gemini_timeout"] == GeminiTimeout.title
    assert config["default_model"] == "gemini-3-pro-image"
    assert config["models"]["gemini-3-pro-image"]["sizes"] == ["1K", "2K", "4K"]
    assert "16:9" in config["models"]["gemini-3-pro-image"]["ratios"]
    assert config["models"]["gemini-3-pro-image"]["prices"]["4K"] > 0
    assert config["formats"] == {"png": "PNG", "jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "gif": "GIF"}
    assert config["pictures"]["types"] == ["image/png", "image/jpeg", "image/webp", "image/gif"]


async def test_page_needs_no_key_and_never_holds_one(studio: Studio) -> None:
    key = "a-key-of-the-service"
    response = await (await studio(api_keys=(SecretStr(key),))).get("/")
    assert response.status == 200
    text = await response.text()
    assert key not in text
    assert Page(text).config["needs_key"] is True


@pytest.mark.parametrize(
    "model", ["</script><script>alert(1)</script>", "<!--<script>", '"};alert(1);//', "{{config}}"]
)
async def test_config_cannot_be_broken_out_of(studio: Studio, model: str) -> None:
    page = await read_page(await studio(gemini_model=model))
    assert page.config["default_model"] == model
    assert [attributes.get("id") for tag, attributes in page.tags if tag == "script"] == ["config", None]


@pytest.mark.parametrize(
    "path", ["/studio/absent.js", "/studio/__init__.py", "/studio/index.html", "/studio/..%2Fapp.py", "/studio/"]
)
async def test_anything_else_is_a_404_problem(studio: Studio, path: str) -> None:
    response = await (await studio()).get(path)
    assert response.status == 404
    assert response.content_type == "application/problem+json"
    assert (await response.json())["code"] == "not_found"


async def test_page_takes_head_and_refuses_post(studio: Studio) -> None:
    client = await studio()
    assert (await client.head("/")).status == 200
    refused = await client.post("/")
    assert (refused.status, refused.content_type) == (405, "application/problem+json")
