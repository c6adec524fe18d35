"""OpenTelemetry: the spans of a request, as a collector on a real socket receives them, and what is left out."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.server.connections import listening
from tests.conftest import MakeSettings
from tests.helpers import bare_environment, picture_bytes, running, upload
from tests.test_tracing import TRACE, TRACEPARENT, Watched

TINY = (("formats", "png,webp"), ("width", "16"))


class Collector:
    """Receives spans as OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    async def receive(self, request: web.Request) -> web.Response:
        batch = ExportTraceServiceRequest.FromString(await request.read())
        for resource in batch.resource_spans:
            self.services |= {
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    collector, app = Collector(), web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    async with listening(app, "127.0.0.1", 0) as [(host, port)]:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
        yield collector


async def test_a_trace_has_the_request_the_call_the_export_and_each_step(
    collector: Collector, make_settings: MakeSettings
) -> None:
    emulator = Watched()
    async with running(make_settings(), emulator) as service:
        answer = await service.thumbnails(upload(picture_bytes()), *TINY, headers={"traceparent": TRACEPARENT})
        assert answer.status == 200
    [request], [call], [export] = (
        collector.named(name) for name in ("POST /api/thumbnails", "gemini.generate_content", "export")
    )
    assert collector.services == {"image-export"}
    assert {span.trace_id.hex() for span in (request, call, export)} == {TRACE}
    assert request.parent_span_id.hex() == TRACEPARENT.split("-")[2]
    assert call.parent_span_id == export.parent_span_id == request.span_id
    assert [each["traceparent"].split("-")[1:3] for each in emulator.headers] == [[TRACE, call.span_id.hex()]]
    steps = {span.name for span in collector.spans if span.parent_span_id == export.span_id}
    assert steps >= {"decode", "normalize", "composite", "encode", "write", "publish"}
    for step in (span for span in collector.spans if span.parent_span_id == export.span_id):
        # The wall clock may be a little ahead in another process.
        assert export.start_time_unix_nano - 1e8 < step.start_time_unix_nano <= step.end_time_unix_nano
        assert step.end_time_unix_nano < export.end_time_unix_nano + 1e8


async def test_without_a_traceparent_a_request_begins_a_trace(
    collector: Collector, make_settings: MakeSettings
) -> None:
    async with running(make_settings(), Watched()) as service:
        await service.get("/healthz")
        await service.get("/nowhere")
    first, second = collector.named("GET /healthz") + collector.named("GET other")
    assert first.trace_id != second.trace_id
    assert not first.parent_span_id
    statuses = [
        {each.key: each.value.int_value for each in span.attributes}["http.response.status_code"]
        for span in (first, second)
    ]
    assert statuses == [200, 404]


@pytest.mark.parametrize(
    "variables",
    [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}],
)
def test_nothing_is_imported_unless_it_is_asked_for(variables: dict[str, str]) -> None:
    code = """
import sys
import service.app
from service.spans import exporting, set_up_spans, span
set_up_spans()()
with span("x") as current:
    assert current is None
assert not exporting()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
        env=bare_environment(**variables),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
