"""Prometheus metrics, in a registry per app, so that several apps can live in one process."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "image_export_"
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 5, 15, 60, 180)


class Metrics:
    """The only user of prometheus_client: other modules are handed these methods as callbacks."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        requests = self._counter("requests", "Answers", "route", "method", "status")
        seconds = self._histogram("request_seconds", "Time to answer", "route")
        # Looking up a child metric by its labels costs as much as counting.
        self._requests_of = lru_cache(maxsize=1024)(requests.labels)
        self._seconds_of = lru_cache(maxsize=64)(seconds.labels)
        self._calls = self._counter("gemini_calls", "Gemini calls by outcome", "outcome")
        self._cost = self._counter("gemini_cost_usd", "Cost of the calls that brought a picture")
        self._warnings = self._counter("steps_back", "Problems that did not stop the export", "code")
        self._workers = self._counter("worker_events", "Workers that died, were late or did not start", "event")
        self._swept = self._counter("swept_files", "Files removed by sweeps", "room")
        self._sweep_errors = self._counter("sweep_errors", "Files that no sweep could remove")
        self._last_sweep = self._gauge(
            "last_sweep_timestamp_seconds", "When the last sweep ended, in Unix time; 0 until one has"
        )
        self._sent_bytes = self._counter("download_bytes", "Bytes of downloads")
        self._commits = self._histogram("ledger_commit_seconds", "Time of a commit of the ledger")
        self._refused_commits = self._counter("ledger_commits_refused", "Commits that the ledger's database refused")
        self._overspent = self._counter(
            "overspent_calls", "Calls that cost more than was reserved: twice the list price"
        )
        self._recovered = self._counter("recovered_raws", "Pictures of dead processes that were recovered")
        self._call_states = self._gauge("ledger_calls", "Calls in the ledger by state", "state")
        self._possibly_billed = self._gauge("possibly_billed_usd", "List price of today's calls with unknown outcome")
        self._budget_left = self._gauge("budget_left_usd", "The rest of today's budget; NaN without one")

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}{name}", help_text, labels, registry=self._registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}{name}", help_text, labels, registry=self._registry)

    def _histogram(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(f"{_PREFIX}{name}", help_text, labels, buckets=_SECONDS, registry=self._registry)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Register a gauge whose value is read on each scrape."""
        self._gauge(name, help_text).set_function(read)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests_of(route, method, status).inc()
        self._seconds_of(route).observe(seconds)

    def called(self, outcome: str, cost: float | None) -> None:
        """Count a Gemini call, and its list price in US dollars if known."""
        self._calls.labels(outcome).inc()
        if cost:
            self._cost.inc(cost)

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

    def text(self) -> bytes:
        """The metrics in the Prometheus text format; takes long enough for a thread."""
        return generate_latest(self._registry)
