"""GET /metrics: its formats, names and labels, and the page that documents them."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as read_text

from service.gemini.models import DEFAULT_MODEL
from service.metrics import OPENMETRICS, TEXT, CallReport, Metrics, negotiated
from tests.conftest import Serve
from tests.helpers import QuickEmulator, Running, picture_bytes, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")

read_openmetrics: Callable[[str], Iterator[Metric]] = openmetrics_parser.text_string_to_metric_families

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
TINY = (("formats", "jpeg"), ("width", "16"))
# What a Prometheus of version 2.45 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


async def scraped(service: Running) -> list[Metric]:
    return list(read_text((await service.get("/metrics")).body.decode()))


@on_one_loop
async def test_both_formats_are_read_by_their_parsers(service: Running) -> None:
    await service.thumbnails(*TINY)
    text, openmetrics = await service.get("/metrics"), await service.get("/metrics", Accept=PROMETHEUS)
    assert (text.headers["Content-Type"], openmetrics.headers["Content-Type"]) == (TEXT, OPENMETRICS)
    families = list(read_text(text.body.decode())), list(read_openmetrics(openmetrics.body.decode()))
    for family in families[0] + families[1]:
        assert family.name.startswith("image_export_")
        assert len(family.documentation.split()) >= 4, family.name
        assert not [sample for sample in family.samples if sample.name.endswith("_created")]


@on_one_loop
@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
async def test_promtool_finds_no_fault(service: Running) -> None:
    await service.thumbnails(*TINY)
    text = (await service.get("/metrics")).body
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        (PROMETHEUS, OPENMETRICS),
        ("text/plain, application/openmetrics-text;q=0.5", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;version=x;q=x", TEXT),
        (";;,,;q=,", TEXT),
    ],
)
def test_accept_chooses_the_format(accept: str, content_type: str) -> None:
    assert negotiated(accept) == content_type


@on_one_loop
async def test_the_page_lists_every_metric_with_its_type_and_labels(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["blocked_safety"]))
    await service.thumbnails(("count", "2"), *TINY)
    page, old_names = PAGE.read_text().split("\n## Old names\n")
    rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z]+) \|(.*?)\|", page, re.MULTILINE)
    documented = {name: (kind, {*re.findall(r"`([a-z]+)`", labels)}) for name, kind, labels in rows}
    renamed = {*re.findall(r"^\| `([a-z_]+)` \|", old_names, re.MULTILINE)}
    shown = {}
    for family in await scraped(service):
        name = family.name.removeprefix("image_export_") + "_total" * (family.type == "counter")
        assert f"`{name}`" in page + old_names
        if name not in renamed:
            shown[name] = family
    assert shown.keys() == documented.keys()
    for name, family in shown.items():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert family.type == documented[name][0]
        assert not family.samples or labels == documented[name][1], name


def families_of(metrics: Metrics) -> dict[str, Metric]:
    return {family.name.removeprefix("image_export_"): family for family in read_text(metrics.text().decode())}


def test_renamed_metrics_have_their_old_names_too() -> None:
    metrics = Metrics()
    metrics.answered("/", "GET", 200, 0.1)
    metrics.warned("over_budget")
    metrics.sent(5)
    families = {name: family.samples for name, family in families_of(metrics).items()}
    table = PAGE.read_text().partition("\n## Old names\n")[2]
    renamed = re.findall(r"^\| `([a-z_]+)` \| `([a-z_]+)` \|$", table, re.MULTILINE)
    assert len(renamed) == 3
    for names in renamed:
        old, new = (families[name.removesuffix("_total")] for name in names)
        assert [(each.labels, each.value) for each in old] == [(each.labels, each.value) for each in new] != []


def test_a_model_that_a_client_names_is_shown_as_other() -> None:
    metrics = Metrics("1.2.3", [DEFAULT_MODEL])
    for model in (DEFAULT_MODEL, *(f"made-up-{number}" for number in range(1000))):
        metrics.called(CallReport(model, "ok", 0.5, 300.0), "shop")
    families = families_of(metrics)
    for name in ("pictures", "gemini_cost_usd", "gemini_call_seconds"):
        assert {sample.labels["model"] for sample in families[name].samples} == {DEFAULT_MODEL, "other"}
    assert [sample.labels for sample in families["pictures"].samples] == [
        {"model": DEFAULT_MODEL, "key": "shop"},
        {"model": "other", "key": "shop"},
    ]
    assert [sample.value for sample in families["gemini_cost_usd"].samples] == [0.5, 500.0]


@on_one_loop
async def test_an_error_counts_once_whether_it_is_of_a_request_or_of_a_variation(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["blocked_safety"] * 3))
    assert (await service.thumbnails(("count", "3"), *TINY)).status == 422
    assert (await service.get("/nowhere")).status == 404
    assert (await service.thumbnails(("nonsense", "1"))).status == 422
    for code, count in (("blocked", 3), ("not_found", 1), ("unknown_field", 1)):
        assert await service.counter(f'image_export_errors_total{{code="{code}"}}') == count


@on_one_loop
async def test_a_call_that_is_sent_again_counts_as_a_retry(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["unavailable"]))
    assert (await service.thumbnails(*TINY)).status == 200
    assert await service.counter("image_export_gemini_retries_total") == 1
    assert await service.counter("image_export_gemini_calls_total") == 1
    assert await service.counter("image_export_gemini_call_seconds_count") == 1
    assert await service.counter("image_export_pictures_total") == 1


@on_one_loop
async def test_every_step_of_an_export_is_timed_in_its_worker(serve: Serve) -> None:
    service = await serve()
    base = upload(picture_bytes(), "base")
    await service.exports(upload(picture_bytes()), base, ("formats", "png,webp"), ("width", "16"))
    steps = await step_counts(service)
    shared = ("decode", "normalize", "base", "composite", "publish")
    each = [(step, name) for step in ("encode", "write") for name in ("png", "webp")]
    assert steps == dict.fromkeys([*((step, "-") for step in shared), *each], 1)
    await service.exports(upload(picture_bytes()), ("formats", "png"), ("width", "16"))
    assert (await step_counts(service))["composite", "-"] == 1


async def step_counts(service: Running) -> dict[tuple[str, str], float]:
    [family] = [each for each in await scraped(service) if each.name == "image_export_export_step_seconds"]
    counts = [sample for sample in family.samples if sample.name.endswith("_count")]
    return {(sample.labels["step"], sample.labels["format"]): sample.value for sample in counts}


@on_one_loop
async def test_gauges_say_what_an_operator_asks_first(service: Running) -> None:
    assert await service.counter("image_export_workers") >= 1
    assert await service.counter("image_export_disk_free_bytes") > 0
    assert await service.counter("image_export_build_info") == 1
