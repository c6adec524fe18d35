"""traceparent and X-Request-Id: what is valid, where it is shown, and where not, and what is passed on to Gemini."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
from aiohttp import web
from multidict import CIMultiDict

from service.gemini.models import DEFAULT_MODEL
from service.logs import BatchHandler, JsonFormatter, TextFormatter, access
from service.server.routes import Handler
from service.tracing import read_correlation_ids
from tests.conftest import Serve
from tests.helpers import (
    ORDER_ID,
    QuickEmulator,
    Running,
    assert_problem,
    picture_bytes,
    upload,
)

on_one_loop = pytest.mark.asyncio(loop_scope="session")

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
TINY = (("formats", "jpeg"), ("width", "16"))
NAMED = {"X-Request-Id": "order-7.of_mine", "traceparent": TRACEPARENT}


def names(*headers: tuple[str, str]) -> tuple[str, str]:
    read = read_correlation_ids(CIMultiDict(headers))
    return read.traceparent, read.request_id


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (TRACEPARENT, TRACEPARENT),
        (f" {TRACEPARENT}\t", TRACEPARENT),
        (TRACEPARENT[:-2] + "00", TRACEPARENT[:-2] + "00"),
        ("cc" + TRACEPARENT[2:], TRACEPARENT),
        (f"cc{TRACEPARENT[2:]}-what-comes-later", TRACEPARENT),
        (f"{TRACEPARENT}-more", ""),
        ("ff" + TRACEPARENT[2:], ""),
        (f"cc{TRACEPARENT[2:]}.more", ""),
        (TRACEPARENT.upper(), ""),
        (TRACEPARENT.replace(TRACE, "0" * 32), ""),
        (TRACEPARENT.replace("b7ad6b7169203331", "0" * 16), ""),
        (TRACEPARENT[:-1], ""),
        (TRACEPARENT.replace("-", "_"), ""),
        ("", ""),
    ],
)
def test_a_traceparent_is_valid_by_the_rules_of_w3c(text: str, valid: str) -> None:
    assert names(("Traceparent", text)) == (valid, "")


@pytest.mark.parametrize(
    ("text", "safe"),
    [("a", True), ("A.b-c_9" * 9, True), ("a" * 64, True), ("a" * 65, False), ("", False), ("a b", False),
     ("a/b", False), ("é", False), ("a\x0bb", False), ("<b>", False), ("a,b", False)],
)  # fmt: skip
def test_a_request_id_is_safe_or_ignored(text: str, safe: bool) -> None:
    assert names(("x-request-id", text)) == ("", text if safe else "")


def test_a_header_that_came_twice_is_ignored() -> None:
    assert names(("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)) == ("", "")
    assert names(("X-Request-Id", "a"), ("x-request-id", "b"), ("traceparent", TRACEPARENT)) == (TRACEPARENT, "")


class Watched(QuickEmulator):
    """Keeps the headers of the calls that it received."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[CIMultiDict[str]] = []

    def create_app(self) -> web.Application:
        app = super().create_app()

        @web.middleware
        async def keep(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.headers.append(CIMultiDict(request.headers))
            return await handler(request)

        app.middlewares.append(keep)
        return app


@on_one_loop
async def test_both_are_passed_on_to_gemini_and_nothing_is_without_them(serve: Serve) -> None:
    emulator = Watched()
    service = await serve(emulator)
    await service.thumbnails(("count", "2"), *TINY, headers=NAMED)
    await service.thumbnails(*TINY)
    passed_on = [{name: call[name] for name in NAMED if name in call} for call in emulator.headers]
    assert passed_on == [NAMED, NAMED, {}]


@on_one_loop
async def test_a_client_names_the_exchange_but_neither_orders_nor_files(service: Running) -> None:
    drawn = await service.thumbnails(*TINY, headers=NAMED)
    exported = await service.exports(upload(picture_bytes()), *TINY, headers=NAMED)
    for answer in (drawn, exported):
        assert answer.headers["X-Request-Id"] == NAMED["X-Request-Id"]
        assert ORDER_ID.fullmatch(answer.json["request_id"])
    [variation] = drawn.json["variations"]
    assert variation["storage_path"] == f"generated/{drawn.json['request_id']}_1.png"
    assert not [name for names in service.files().values() for name in names if NAMED["X-Request-Id"] in name]


@on_one_loop
async def test_a_problem_names_its_order_and_without_one_the_exchange(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["not_a_picture"]))
    headers = NAMED | {"Idempotency-Key": "once"}
    early = assert_problem(await service.thumbnails(("count", "0"), headers=headers), 422, "invalid_field")
    assert early["request_id"] == NAMED["X-Request-Id"]
    failed = await service.thumbnails(*TINY, headers=headers)
    again = await service.thumbnails(*TINY, headers=headers | {"X-Request-Id": "another"})
    assert (failed.headers["X-Request-Id"], again.headers["X-Request-Id"]) == (NAMED["X-Request-Id"], "another")
    [row] = (await service.get("/api/thumbnails")).json["requests"]
    order = row["request_id"]
    for answer in (failed, again):
        assert assert_problem(answer, 502, "bad_reply")["request_id"] == order
    of_its_raw = await service.get(f"/api/thumbnails/{order}/variations/var-2/raw", X_Request_Id="third")
    assert assert_problem(of_its_raw, 404, "not_found")["request_id"] == order
    unknown = await service.get("/api/thumbnails/req_0", X_Request_Id="third")
    assert assert_problem(unknown, 404, "not_found")["request_id"] == "third"


@on_one_loop
async def test_an_unsafe_request_id_is_replaced(service: Running) -> None:
    for unsafe in ("a" * 65, "a b", "<script>"):
        assert ORDER_ID.fullmatch((await service.get("/healthz", X_Request_Id=unsafe)).headers["X-Request-Id"])


@on_one_loop
async def test_a_refusal_before_the_middlewares_takes_the_id_over_too(service: Running) -> None:
    answer = await service.ask("GET", "/healthz", headers=NAMED | {"Expect": "more"})
    body = assert_problem(answer, 417, "expectation_failed")
    assert body["request_id"] == answer.headers["X-Request-Id"] == NAMED["X-Request-Id"]


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the root logger writes, in the format of the parameter."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = BatchHandler(stream), root.level
    handler.setFormatter(request.param)
    handler.addFilter(lambda record: record.name == access.name)
    root.addHandler(handler)
    root.setLevel("INFO")
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


async def written(log: io.StringIO, count: int = 1) -> list[str]:
    async with asyncio.timeout(20):
        while log.getvalue().count("\n") < count:
            await asyncio.sleep(0.01)
    return log.getvalue().splitlines()


@on_one_loop
@pytest.mark.parametrize("log", [JsonFormatter()], indirect=True)
async def test_a_line_of_json_has_size_client_key_code_and_trace(service: Running, log: io.StringIO) -> None:
    good, bad = await service.get("/healthz", **NAMED), await service.get("/nowhere")
    head = await service.ask("HEAD", "/healthz")
    first, second, third = map(json.loads, await written(log, 3))
    assert first.items() >= {
        "request_id": NAMED["X-Request-Id"], "trace_id": TRACE, "method": "GET", "path": "/healthz", "status": 200,
        "bytes": len(good.body), "client": "127.0.0.1", "key": "-", "code": None,
    }.items()  # fmt: skip
    assert second.items() >= {"status": 404, "bytes": len(bad.body), "code": "not_found"}.items()
    assert "trace_id" not in second
    assert (head.status, third["bytes"]) == (200, 0)


@on_one_loop
@pytest.mark.parametrize("log", [JsonFormatter()], indirect=True)
async def test_the_size_is_what_is_sent_of_a_file(service: Running, log: io.StringIO) -> None:
    exported = await service.exports(upload(picture_bytes((640, 480))), ("formats", "png"))
    url = exported.json["exports"]["png"]["url"]
    await service.get(url)
    await service.get(url, Range="bytes=0-9")
    etag = (await service.ask("HEAD", url)).headers["ETag"]
    await service.get(url, If_None_Match=etag)
    sizes = [json.loads(line)["bytes"] for line in await written(log, 5) if "/static/" in line]
    assert sizes == [exported.json["exports"]["png"]["size"], 10, 0, 0]


@on_one_loop
@pytest.mark.parametrize("log", [TextFormatter()], indirect=True)
async def test_a_line_of_text_has_the_iso_time_the_id_and_the_trace(service: Running, log: io.StringIO) -> None:
    await service.get("/healthz", **NAMED)
    [line] = await written(log)
    time, level, mark, *_, trace = line.split()
    assert (level, mark, trace) == ("INFO", NAMED["X-Request-Id"], f"trace={TRACE}")
    assert len(time) == len("2026-11-27T18:00:00.123+00:00")
    assert time[10] == "T"
    assert time[19] == "."
    assert time[23] in "+-"


@on_one_loop
@pytest.mark.parametrize("log", [JsonFormatter()], indirect=True)
async def test_the_name_of_a_key_is_in_logs_and_metrics_and_the_key_in_neither(serve: Serve, log: io.StringIO) -> None:
    key, nameless = "k" * 20, "n" * 20
    service = await serve(QuickEmulator(), api_keys=f"shop:{key},{nameless}")
    assert (await service.thumbnails(*TINY, headers={"Authorization": f"Bearer {key}"})).status == 200
    assert (await service.thumbnails(*TINY, headers={"Authorization": f"Bearer {nameless}"})).status == 200
    assert (await service.thumbnails(*TINY)).status == 401
    assert [json.loads(line)["key"] for line in await written(log, 3)] == ["shop", "-", "-"]
    text = (await service.get("/metrics", Authorization=f"Bearer {key}")).body.decode()
    for name in ("shop", "-"):
        assert f'image_export_pictures_total{{key="{name}",model="{DEFAULT_MODEL}"}} 1.0' in text
    assert not {key, nameless} & {*log.getvalue().split('"'), *text.split('"')}
