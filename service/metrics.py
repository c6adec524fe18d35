"""Every metric, in a registry of its own so that several apps can live in one process."""

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 5, 15, 60, 180)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        prefix = "image_export_"
        self.requests = Counter(f"{prefix}requests", "Answers", ("route", "method", "status"), registry=self._registry)
        self.seconds = Histogram(
            f"{prefix}request_seconds", "Time to answer", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self.calls = Counter(f"{prefix}gemini_calls", "Gemini calls by outcome", ("outcome",), registry=self._registry)
        self.cost = Counter(f"{prefix}gemini_cost_usd", "List price of received pictures", registry=self._registry)
        self.warnings = Counter(
            f"{prefix}steps_back", "What went wrong and was lived with", ("code",), registry=self._registry
        )
        self.workers = Counter(
            f"{prefix}worker_events",
            "Workers that died, were late or did not start",
            ("event",),
            registry=self._registry,
        )
        self.swept = Counter(f"{prefix}swept_files", "Files removed by sweeps", ("room",), registry=self._registry)
        self.sweep_errors = Counter(
            f"{prefix}sweep_errors", "Files that no sweep could remove", registry=self._registry
        )
        self.last_sweep = Gauge(
            f"{prefix}last_sweep_timestamp_seconds",
            "When the last sweep ended, in Unix time; 0 until one has",
            registry=self._registry,
        )
        self.sent_bytes = Counter(f"{prefix}download_bytes", "Bytes of downloads", registry=self._registry)
        # Finding a metric by its labels costs as much as counting.
        self._counter = lru_cache(maxsize=1024)(self.requests.labels)
        self._timer = lru_cache(maxsize=64)(self.seconds.labels)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self._counter(route, method, status).inc()
        self._timer(route).observe(seconds)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A value that is read when asked for."""
        Gauge(f"image_export_{name}", help_text, registry=self._registry).set_function(read)

    def called(self, outcome: str, cost: float | None) -> None:
        self.calls.labels(outcome).inc()
        if cost:
            self.cost.inc(cost)

    def warned(self, code: str) -> None:
        self.warnings.labels(code).inc()

    def worker(self, event: str) -> None:
        self.workers.labels(event).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)
