"""Prometheus metrics, in a registry per app, so that several apps can live in one process."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

TEXT, OPENMETRICS = CONTENT_TYPE_PLAIN_0_0_4, openmetrics.CONTENT_TYPE_LATEST
_WRITERS: Mapping[str, Callable[[CollectorRegistry], bytes]] = {
    TEXT: generate_latest,
    OPENMETRICS: openmetrics.generate_latest,
}
# In place of a label's value that is not one of the known ones, and of one that there is none of.
OTHER, NONE = "other", "-"

_PREFIX = "image_export_"
_ANSWER_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 5, 15, 60, 180, 300)
_CALL_SECONDS = (0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300)
_STEP_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60)
_COMMIT_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 5, 15)

# A time stamp of its creation beside each counter doubles the series, and serves nobody here.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class CallReport:
    """A Gemini call that ended, with `ok` or an error code.

    `cost` is its price in US dollars, `seconds` the time since it was last sent; None where there is none.
    """

    model: str
    outcome: str
    cost: float | None = None
    seconds: float | None = None


class Metrics:
    """The only user of prometheus_client: other modules are handed these methods as callbacks.

    `models` are the values of the label `model`; any other is shown as `other`, since clients choose the names.
    """

    def __init__(self, version: str = "", models: Collection[str] = ()) -> None:
        self._registry = CollectorRegistry()
        self._models = frozenset(models)
        Info(f"{_PREFIX}build", "The version of the running service", registry=self._registry).info(
            {"version": version}
        )
        self._of_answers()
        self._of_calls()
        self._of_exports()
        self._of_ledger()
        self._of_sweeps()

    def _of_answers(self) -> None:
        requests = self._counter(
            "requests", "Answers to requests by route, method and status", "route", "method", "status"
        )
        seconds = self._histogram(
            "request_duration_seconds", "Time to answer a request", _ANSWER_SECONDS, "route", "method"
        )
        # Looking up a child metric by its labels costs as much as counting.
        self._requests_of = lru_cache(maxsize=1024)(requests.labels)
        self._seconds_of = lru_cache(maxsize=256)(seconds.labels)
        self._errors = self._counter("errors", "Errors of requests and of variations by code", "code")
        self._rate_limited = self._counter("rate_limited", "Requests over the rate of their key", "key")
        self._sent_bytes = self._counter("sent_bytes", "Bytes of downloads that were sent")
        self._keep_name("request_seconds", seconds)
        self._keep_name("download_bytes", self._sent_bytes)

    def _of_calls(self) -> None:
        self._calls = self._counter("gemini_calls", "Calls to Gemini by outcome", "outcome")
        self._call_seconds = self._histogram(
            "gemini_call_seconds", "Time from a call to its reply", _CALL_SECONDS, "model", "outcome"
        )
        self._retries = self._counter("gemini_retries", "Calls that were sent again after a refusal")
        self._pictures = self._counter("pictures", "Pictures that came from Gemini", "model", "key")
        self._cost = self._counter(
            "gemini_cost_usd", "Cost of the calls that brought a picture, in USD", "model", "key"
        )

    def _of_exports(self) -> None:
        self._steps = self._histogram(
            "export_step_seconds", "Time of each step of an export", _STEP_SECONDS, "step", "format"
        )
        self._warnings = self._counter("warnings", "Problems that did not stop an export", "code")
        self._workers = self._counter("worker_events", "Workers that died, were late or did not start", "event")
        self._keep_name("steps_back", self._warnings)

    def _of_ledger(self) -> None:
        self._commits = self._histogram("ledger_commit_seconds", "Time of a commit of the ledger", _COMMIT_SECONDS)
        self._refused_commits = self._counter("ledger_commits_refused", "Commits that the ledger's database refused")
        self._overspent = self._counter(
            "overspent_calls", "Calls that cost more than was reserved: twice the list price"
        )
        self._recovered = self._counter("recovered_raws", "Pictures of dead processes that were recovered")
        self._call_states = self._gauge("ledger_calls", "Calls in the ledger by state", "state")
        self._possibly_billed = self._gauge("possibly_billed_usd", "List price of today's calls with unknown outcome")
        self._budget_left = self._gauge("budget_left_usd", "The rest of today's budget; NaN without one")

    def _of_sweeps(self) -> None:
        self._swept = self._counter("swept_files", "Files removed by sweeps", "room")
        self._sweep_errors = self._counter("sweep_errors", "Files that no sweep could remove")
        self._last_sweep = self._gauge(
            "last_sweep_timestamp_seconds", "When the last sweep ended, in Unix time; 0 until one has"
        )

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}{name}", help_text, labels, registry=self._registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}{name}", help_text, labels, registry=self._registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{_PREFIX}{name}", help_text, labels, buckets=buckets, registry=self._registry)

    def _keep_name(self, old_name: str, metric: MetricWrapperBase) -> None:
        self._registry.register(_OldName(f"{_PREFIX}{old_name}", metric))

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Register a gauge whose value is read on each scrape, in the thread that writes the text."""
        self._gauge(name, help_text).set_function(read)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests_of(route, method, status).inc()
        self._seconds_of(route, method).observe(seconds)

    def failed(self, code: str) -> None:
        """Count an error of a request, or of one variation."""
        self._errors.labels(code).inc()

    def rate_limited(self, key: str) -> None:
        """Count a request that was over the rate of its key."""
        self._rate_limited.labels(key).inc()

    def called(self, report: CallReport, key: str = NONE) -> None:
        """Count a Gemini call that was made for an API key of this name."""
        self._calls.labels(report.outcome).inc()
        model = report.model if report.model in self._models else OTHER
        if report.seconds is not None:
            self._call_seconds.labels(model, report.outcome).observe(report.seconds)
        if report.outcome == "ok":
            self._pictures.labels(model, key).inc()
        self._cost.labels(model, key).inc(report.cost or 0)

    def retried(self) -> None:
        """Count a Gemini call that is sent again."""
        self._retries.inc()

    def step(self, step: str, picture_format: str | None, seconds: float) -> None:
        """Observe a step of an export; `picture_format` is None for one that all formats share."""
        self._steps.labels(step, picture_format or NONE).observe(seconds)

    def committed(self, seconds: float | None) -> None:
        """Observe the time of a commit of the ledger; None counts one that the database refused."""
        if seconds is None:
            self._refused_commits.inc()
        else:
            self._commits.observe(seconds)

    def overspent(self) -> None:
        """Count a call that cost more than was reserved for it."""
        self._overspent.inc()

    def recovered(self) -> None:
        """Count a picture of a dead process that was recovered."""
        self._recovered.inc()

    def ledger(self, states: Mapping[str, int], possible: float, left: float | None) -> None:
        """Set the calls by state, and the day's money in USD: `possible` billed, and `left` of the budget."""
        for state, count in states.items():
            self._call_states.labels(state).set(count)
        self._possibly_billed.set(possible)
        self._budget_left.set(math.nan if left is None else max(0.0, left))

    def warned(self, code: str) -> None:
        self._warnings.labels(code).inc()

    def worker(self, event: str) -> None:
        self._workers.labels(event).inc()

    def swept(self, area: str, removed: int, failed: int) -> None:
        """Count the files that a sweep of an area removed, and those that it could not remove."""
        self._swept.labels(area).inc(removed)
        self._sweep_errors.inc(failed)

    def sweep_ended(self, wall_clock: float) -> None:
        self._last_sweep.set(wall_clock)

    def sent(self, count: int) -> None:
        """Count bytes of a download."""
        self._sent_bytes.inc(count)

    def text(self, content_type: str = TEXT) -> bytes:
        """All metrics as TEXT or OPENMETRICS; takes long enough for a thread."""
        return _WRITERS[content_type](self._registry)


class _OldName(Collector):
    """A metric under the name that it had in the release before; it costs nothing until a scrape."""

    def __init__(self, name: str, metric: MetricWrapperBase) -> None:
        self._name = name
        self._metric = metric

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        for family in self._metric.collect():
            old = Metric(self._name, f"{family.documentation}; the old name of {family.name}", family.type)
            for sample in family.samples:
                old.samples.append(sample._replace(name=sample.name.replace(family.name, self._name, 1)))
            yield old


def negotiated(accept: str) -> str:
    """TEXT, or OPENMETRICS if an Accept header wants it at least as much."""
    ranges = [_media_range(each) for each in accept.lower().split(",")]
    wanted, text = (
        max((weight for kind, weight in ranges if kind == asked), default=0.0)
        for asked in ("application/openmetrics-text", "text/plain")
    )
    return OPENMETRICS if wanted > 0 and wanted >= text else TEXT


def _media_range(text: str) -> tuple[str, float]:
    """The type of one element of Accept, and its weight (RFC 9110, 12.5.1); 0 for one that is malformed."""
    kind, *parameters = (part.strip() for part in text.split(";"))
    weight = next((value.removeprefix("q=") for value in parameters if value.startswith("q=")), "1")
    try:
        return kind, float(weight)
    except ValueError:
        return kind, 0.0
