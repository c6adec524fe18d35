"""OpenTelemetry spans, by the extra `otel`; while none are exported, nothing is imported and no time is spent.

They are exported if OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_TRACES_EXPORTER (`otlp`, `console`) is set, or if the program
that embeds the service has set a tracer provider.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

log = logging.getLogger(__name__)

SERVICE_NAME = "image-export"
Kind = Literal["INTERNAL", "SERVER", "CLIENT"]
Value = str | int | float | bool

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NANO = 1_000_000_000


@dataclass(slots=True)
class _State:
    tracer: "Tracer | None" = None


_state = _State()


def set_up_spans() -> Callable[[], None]:
    """Begin to export spans if that is configured; returns a function that sends the rest and stops. Blocks."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return _nothing
    if _provider_is_set():
        _use_provider()
        return _nothing
    exporter = os.environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none")
    if exporter == "none":
        return _nothing
    try:
        provider = _provider(exporter)
    except ImportError:
        log.warning("no spans are exported: install the extra `otel`, pip install 'image-export-pipeline[otel]'")
        return _nothing
    except ValueError as error:
        log.warning("no spans are exported: %s", error)
        return _nothing
    _state.tracer = provider.get_tracer(SERVICE_NAME)

    def end() -> None:
        _state.tracer = None
        provider.shutdown()

    return end


def _nothing() -> None:
    pass


def _provider_is_set() -> bool:
    """Whether the program set a tracer provider; without the API loaded, nobody can have."""
    if "opentelemetry.trace" not in sys.modules:
        return False
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _use_provider() -> None:
    from opentelemetry import trace

    _state.tracer = trace.get_tracer(SERVICE_NAME)


def _provider(exporter: str) -> "TracerProvider":
    """A provider by the OTEL_ variables; raises ImportError without the extra, ValueError for an unknown exporter."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    if exporter == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        sender: SpanExporter = OTLPSpanExporter()
    elif exporter == "console":
        sender = ConsoleSpanExporter(out=sys.stderr)
    else:
        raise ValueError(f"OTEL_TRACES_EXPORTER={exporter[:50]!r} is not known: otlp, console or none")
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE_NAME}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(sender))
    return provider


def exporting() -> bool:
    return _state.tracer is not None


@contextlib.contextmanager
def span(name: str, kind: Kind = "INTERNAL", *, parent: str = "", **attributes: Value) -> Iterator["Span | None"]:
    """A span around the code inside; `parent` is a valid traceparent, by default the current span is the parent.

    An exception other than a cancellation marks the span as failed.
    """
    if _state.tracer is None:
        yield None
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    with _state.tracer.start_as_current_span(name, context, _kind(kind), attributes) as current:
        yield current


def add_span(name: str, start: float, seconds: float, **attributes: Value) -> None:
    """A span that has ended, such as a worker's, below the current one; `start` is Unix time."""
    if _state.tracer is None:
        return
    begun = _state.tracer.start_span(name, attributes=attributes, start_time=round(start * _NANO))
    begun.end(round((start + seconds) * _NANO))


def _kind(name: Kind) -> "SpanKind":
    from opentelemetry.trace import SpanKind

    return SpanKind[name]


def current_traceparent() -> str:
    """The traceparent of the current span, for a call to another service; empty while no spans are exported."""
    if _state.tracer is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")
