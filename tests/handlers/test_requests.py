"""Status, list, cancel, raws, exports made again, deletion, usage and budget."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from service.emulator.responders import raw
from service.imaging.formats import FORMATS
from service.server.keys import ADMISSION, EXPORTS
from tests.conftest import Serve
from tests.handlers.test_idempotency import BASE, JPEG, Gate, keyed
from tests.helpers import QuickEmulator, Running, assert_problem, decoded, export_names, picture_bytes, until, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNKNOWN = "req_" + "0" * 32


async def test_the_status_of_a_request_that_ended(service: Running) -> None:
    answer = await service.thumbnails(JPEG, ("count", "2"))
    status = (await service.get(f"/api/thumbnails/{answer.json['request_id']}")).json
    assert status["variations"] == answer.json["variations"]
    assert (status["state"], status["mode"], status["errors"]) == ("succeeded", "sync", [])
    assert (status["script"], status["count"], status["idempotency_key"]) == ("My awesome video", 2, None)
    assert status["batch_id"] is None
    assert status["created_at"] < status["finished_at"]
    assert status["created_at"].endswith("+00:00")
    [call, _] = status["calls"]
    assert (call["id"], call["attempt"], call["state"], call["billed"]) == ("var-1", 1, "exported", True)
    assert (call["model"], call["image_size"], call["tier"]) == ("gemini-nano-banana-2.1", "1K", "interactive")
    assert call["sent_at"] <= call["finished_at"]
    assert call["storage_path"] == answer.json["variations"][0]["storage_path"]
    assert call["sha256"] == answer.json["variations"][0]["metadata"]["sha256"]
    assert call["cost_usd"] == answer.json["variations"][0]["metadata"]["cost_usd"] > 0
    assert status["cost_usd"] == pytest.approx(2 * call["cost_usd"], abs=1e-6)
    assert status["possibly_billed_usd"] == 0.0


@pytest.mark.parametrize("path", ["", "/events", "/variations/var-1/raw"])
@pytest.mark.parametrize("request_id", [UNKNOWN, "req_1", "x" * 300, "%2e%2e", "REQ_" + "0" * 32, "%ff"])
async def test_an_unknown_id_is_404(service: Running, request_id: str, path: str) -> None:
    assert_problem(await service.get(f"/api/thumbnails/{request_id}{path}"), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("?limit=0", 422, "invalid_field"),
        ("?limit=101", 422, "invalid_field"),
        ("?limit=1.5", 422, "invalid_field"),
        ("?limit=%D9%A1", 422, "invalid_field"),
        ("?limit=1&limit=1", 400, "duplicate_field"),
        ("?page=1", 422, "unknown_field"),
        (f"?before={UNKNOWN}", 404, "not_found"),
        (f"/{UNKNOWN}?x=1", 422, "unknown_field"),
    ],
)
async def test_parameters_that_are_refused(service: Running, path: str, status: int, code: str) -> None:
    assert_problem(await service.get(f"/api/thumbnails{path}"), status, code)


async def test_a_list_is_newest_first_and_page_by_page(serve: Serve) -> None:
    service = await serve()
    made = [(await service.thumbnails(JPEG)).json["request_id"] for _ in range(3)]
    first = (await service.get("/api/thumbnails?limit=2")).json["requests"]
    assert [each["request_id"] for each in first] == made[:0:-1]
    rest = (await service.get(f"/api/thumbnails?before={first[-1]['request_id']}")).json["requests"]
    assert [each["request_id"] for each in rest] == made[:1]
    assert (await service.get("/api/thumbnails?idempotency_key=none")).json == {"requests": []}


@pytest.mark.parametrize("path", ["/api/thumbnails", f"/api/thumbnails/{UNKNOWN}", "/api/usage"])
async def test_head_is_not_answered(service: Running, path: str) -> None:
    assert (await service.ask("HEAD", path)).status == 405


@pytest.mark.parametrize("path", ["/api/thumbnails", "/api/usage", f"/api/thumbnails/{UNKNOWN}"])
async def test_without_keys_the_host_must_be_the_services_own(service: Running, path: str) -> None:
    assert_problem(await service.get(path, Host="evil.example"), 403, "cross_origin")


async def test_cancelling_stops_calls_that_were_not_sent(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    request = asyncio.create_task(service.thumbnails(JPEG, ("count", "3")))
    await until(lambda: service.emulator.in_flight == 1)
    [status] = (await service.get("/api/thumbnails")).json["requests"]
    cancelled = await service.ask("POST", f"/api/thumbnails/{status['request_id']}/cancel")
    assert (cancelled.status, cancelled.json["state"]) == (200, "running")
    assert [call["state"] for call in cancelled.json["calls"]] == ["sending", "cancelled", "cancelled"]
    gate.open.set()
    answer = await request
    assert [each["id"] for each in answer.json["variations"]] == ["var-1"]
    assert [(each["code"], each["status"], each["billed"], each["retryable"]) for each in answer.json["errors"]] == [
        ("cancelled", 409, False, True)
    ] * 2
    assert service.emulator.requests == 1
    again = await service.ask("POST", f"/api/thumbnails/{status['request_id']}/cancel")
    assert (again.status, again.json["state"]) == (200, "partial")


async def test_a_request_that_was_cancelled_whole_is_409(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    first = asyncio.create_task(service.thumbnails(JPEG))
    await until(lambda: service.emulator.in_flight == 1)
    second = asyncio.create_task(service.thumbnails(JPEG, ("count", "2"), headers=keyed("a")))
    await until(lambda: service.app[ADMISSION].inside["thumbnails"] == 2)
    async with asyncio.timeout(20):
        while not (found := (await service.get("/api/thumbnails?idempotency_key=a")).json["requests"]):
            await asyncio.sleep(0.01)
    await service.ask("POST", f"/api/thumbnails/{found[0]['request_id']}/cancel")
    body = assert_problem(await second, 409, "cancelled")
    assert (body["billed"], body["retryable"]) == (False, True)
    gate.open.set()
    await first
    assert (await service.thumbnails(JPEG, ("count", "2"), headers=keyed("a"))).status == 200


async def test_the_raw_is_sent_as_it_was_kept(service: Running) -> None:
    answer = await service.thumbnails(JPEG)
    path = answer.json["variations"][0]["storage_path"]
    url = f"/api/thumbnails/{answer.json['request_id']}/variations/var-1/raw"
    got = await service.get(url)
    kept = Path(service.settings.storage_dir, path).read_bytes()
    assert (got.status, got.body) == (200, kept)
    assert got.headers["Content-Type"] == "image/png"
    assert got.headers["Content-Disposition"] == f'attachment; filename="{Path(path).name}"'
    assert got.headers["Cache-Control"] == "private, no-store"
    part = await service.get(url, Range="bytes=5-9")
    assert (part.status, part.body) == (206, kept[5:10])
    assert (await service.get(url, If_None_Match=got.headers["ETag"])).status == 304
    head = await service.ask("HEAD", url)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(kept)))


async def test_a_reply_that_could_not_be_read_is_sent_too(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=[raw(200, b'{"what": "is this"}')]))
    answer = await service.thumbnails(JPEG)
    [failed] = answer.json["errors"]
    [status] = (await service.get("/api/thumbnails")).json["requests"]
    assert status["calls"][0]["storage_path"] == failed["storage_path"]
    url = f"/api/thumbnails/{status['request_id']}/variations/var-1"
    got = await service.get(f"{url}/raw")
    assert (got.status, got.body) == (200, b'{"what": "is this"}')
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert_problem(await service.post(f"{url}/exports", JPEG), 409, "no_raw")


async def test_without_a_raw_there_is_none_to_send_or_export(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["blocked_safety"]))
    await service.thumbnails(JPEG)
    [status] = (await service.get("/api/thumbnails")).json["requests"]
    url = f"/api/thumbnails/{status['request_id']}/variations"
    assert_problem(await service.get(f"{url}/var-1/raw"), 409, "no_raw")
    assert_problem(await service.post(f"{url}/var-1/exports"), 409, "no_raw")
    assert_problem(await service.get(f"{url}/var-2/raw"), 404, "not_found")
    assert_problem(await service.post(f"{url}/nothing/exports"), 404, "not_found")


async def test_a_raw_that_was_swept_is_gone(serve: Serve) -> None:
    service = await serve()
    answer = await service.thumbnails(JPEG)
    Path(service.settings.storage_dir, answer.json["variations"][0]["storage_path"]).unlink()
    url = f"/api/thumbnails/{answer.json['request_id']}/variations/var-1"
    assert_problem(await service.get(f"{url}/raw"), 410, "raw_gone")
    assert_problem(await service.post(f"{url}/exports"), 410, "raw_gone")


async def test_an_export_that_is_gone_has_no_link(serve: Serve) -> None:
    service = await serve()
    answer = await service.thumbnails(("formats", "png,jpeg"), headers=keyed("a"))
    [name] = [name for name in export_names(answer.json["variations"][0]["exports"]) if name.endswith(".png")]
    Path(service.settings.storage_dir, "output", name).unlink()
    for answered in (
        (await service.get(f"/api/thumbnails/{answer.json['request_id']}")).json,
        (await service.thumbnails(("formats", "png,jpeg"), headers=keyed("a"))).json,
    ):
        exports = answered["variations"][0]["exports"]
        assert exports["png"]["url"] is None
        assert (await service.get(exports["jpeg"]["url"])).status == 200


async def test_exporting_again_takes_absent_fields_from_the_request(service: Running) -> None:
    answer = await service.thumbnails(
        ("formats", "jpeg"), ("width", "320"), ("height", "200"), ("jpeg_quality", "30"), upload(BASE)
    )
    url = f"/api/thumbnails/{answer.json['request_id']}/variations/var-1/exports"
    calls = service.emulator.requests
    again = await service.post(url)
    assert again.status == 200, again.body
    assert again.json["request_id"] == answer.json["request_id"]
    assert again.json["metadata"]["composited"] is True
    assert again.json["metadata"]["digital_source_type"] == "compositeWithTrainedAlgorithmicMedia"
    [first], [second] = (answer.json["variations"][0]["exports"].values(), again.json["exports"].values())
    assert (second["sha256"], second["width"], second["height"]) == (first["sha256"], 320, 200)
    assert second["url"] != first["url"]
    other = await service.post(url, ("formats", "png"), ("width", "100"), ("blend", "1"))
    [export] = other.json["exports"].values()
    assert (export["format"], export["width"], export["height"]) == ("PNG", 100, 56)
    assert other.json["metadata"]["digital_source_type"] == "trainedAlgorithmicMedia"
    assert service.emulator.requests == calls
    blue = await service.post(url, upload(picture_bytes(colour="blue"), "base"), ("blend", "0"), ("formats", "png"))
    picture = decoded((await service.get(blue.json["exports"]["png"]["url"])).body)
    assert picture.getpixel((0, 0)) == (0, 0, 255)


async def test_an_avif_is_exported_again_as_before(service: Running) -> None:
    small = [("formats", "avif"), ("avif_quality", "40"), ("width", "160"), ("height", "90")]
    answer = await service.thumbnails(*small)
    again = await service.post(f"/api/thumbnails/{answer.json['request_id']}/variations/var-1/exports")
    [first], [second] = (answer.json["variations"][0]["exports"].values(), again.json["exports"].values())
    assert (second["format"], second["quality"], second["sha256"]) == ("AVIF", 40, first["sha256"])
    assert second["file_path"].endswith(".avif")
    assert second["file_path"] != first["file_path"]


@pytest.mark.parametrize(
    "fields", [[("script", "x")], [("provenance", "generated")], [("animate", "keep")], [("width", "0")]]
)
async def test_exporting_again_takes_export_fields_only(service: Running, fields: Any) -> None:
    answer = await service.thumbnails(JPEG)
    url = f"/api/thumbnails/{answer.json['request_id']}/variations/var-1/exports"
    assert (await service.post(url, *fields)).status == 422


async def test_without_its_base_it_is_exported_alone_with_a_warning(serve: Serve) -> None:
    service = await serve()
    answer = await service.thumbnails(JPEG, upload(BASE))
    for name in service.area("uploads"):
        Path(service.settings.storage_dir, "uploads", name).unlink()
    again = await service.post(f"/api/thumbnails/{answer.json['request_id']}/variations/var-1/exports")
    assert [warning["code"] for warning in again.json["warnings"]] == ["composite_failed"]
    assert again.json["metadata"]["composited"] is False


async def test_deleting_removes_the_files_and_keeps_the_costs(serve: Serve) -> None:
    service = await serve()
    every = ("formats", ",".join(FORMATS))
    answer = await service.thumbnails(every, upload(BASE), headers=keyed("a"))
    path = f"/api/thumbnails/{answer.json['request_id']}"
    exports = (await service.get(path)).json["variations"][0]["exports"]
    assert {(await service.get(export["url"])).status for export in exports.values()} == {200}
    assert len(exports) == len(service.area("output")) == len(FORMATS)
    before = (await service.get("/api/usage")).json["total"]
    deleted = await service.ask("DELETE", path)
    assert (deleted.status, deleted.body) == (204, b"")
    assert service.files() == {"uploads": [], "generated": [], "output": [], "temp": []}
    assert_problem(await service.get(path), 404, "not_found")
    assert_problem(await service.ask("DELETE", path), 404, "not_found")
    assert_problem(await service.thumbnails(every, upload(BASE), headers=keyed("a")), 410, "deleted")
    assert (await service.get("/api/thumbnails")).json == {"requests": []}
    assert (await service.get("/api/usage")).json["total"] == before


async def test_a_running_request_cannot_be_deleted(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    answer = await service.thumbnails(JPEG, headers={"Prefer": "respond-async"})
    assert_problem(await service.ask("DELETE", f"/api/thumbnails/{answer.json['request_id']}"), 409, "running")
    gate.open.set()


async def test_usage_is_the_sum_of_the_answers(serve: Serve) -> None:
    service = await serve(budget_usd_per_day="10")
    answer = await service.thumbnails(JPEG, ("count", "3"))
    usage = (await service.get("/api/usage")).json
    spent = sum(each["metadata"]["cost_usd"] for each in answer.json["variations"])
    assert usage["total"]["cost_usd"] == pytest.approx(spent, abs=3e-6)
    assert (usage["total"]["calls"], usage["total"]["pictures"]) == (3, 3)
    [row] = usage["rows"]
    assert (row["model"], row["outcome"], row["calls"]) == ("gemini-nano-banana-2.1", "exported", 3)
    assert usage["budget"]["usd_per_day"] == 10.0
    assert usage["budget"]["left_usd"] == pytest.approx(10 - spent, abs=3e-6)
    assert usage["budget"]["reserved_usd"] == 0.0
    assert (usage["from"] < usage["to"], usage["to"]) == (True, row["day"])


@pytest.mark.parametrize(
    "query",
    ["from=2026-1-1", "from=20260101", "from=2026-02-30", "to=x", "from=2026-02-02&to=2026-02-01", "from=2020-01-01"],
)
async def test_days_that_are_refused(service: Running, query: str) -> None:
    assert_problem(await service.get(f"/api/usage?{query}"), 422, "invalid_field")


async def test_a_request_over_the_budget_is_refused_before_any_call(serve: Serve) -> None:
    service = await serve(budget_usd_per_day="0.15")
    assert (await service.thumbnails(JPEG, ("count", "2"))).status == 200
    with service.nothing_spent_or_left():
        answer = await service.thumbnails(JPEG, ("count", "2"), headers=keyed("a"))
        body = assert_problem(answer, 429, "budget_exhausted")
        assert (body["billed"], body["retryable"]) == (False, True)
        assert 0 < int(answer.headers["Retry-After"]) <= 86_400
        assert_problem(await service.thumbnails(JPEG, ("model", "unknown-model")), 422, "unpriced_model")
    assert (await service.thumbnails(JPEG, headers=keyed("a"))).status == 200


async def test_no_sweep_takes_an_export_before_its_link_ends(serve: Serve) -> None:
    service = await serve(
        sign_urls=True, signing_secret="s" * 32, url_signature_expiry=600, output_retention_days=0.001
    )
    before = time.time()
    answer = await service.thumbnails(JPEG)
    export = answer.json["variations"][0]["exports"]["jpeg"]
    path, clean = Path(service.settings.storage_dir, export["file_path"]), service.app[EXPORTS].cleanup_output_files
    expires = int(URL(export["url"]).query["expires"])
    assert path.stat().st_mtime >= before
    assert path.stat().st_mtime + 600 >= expires
    for days in (None, 1e-9):
        assert await asyncio.to_thread(clean, days) == 0
    past = expires - 600 - 590
    os.utime(path, (past, past))
    assert await asyncio.to_thread(clean, 1e-9) == 0
    os.utime(path, (past - 11, past - 11))
    assert await asyncio.to_thread(clean, 1e-9) == 1
    status = (await service.get(f"/api/thumbnails/{answer.json['request_id']}")).json
    assert status["variations"][0]["exports"]["jpeg"]["url"] is None


async def test_a_link_that_is_signed_later_ends_with_its_file(serve: Serve) -> None:
    service = await serve(
        sign_urls=True, signing_secret="s" * 32, url_signature_expiry=600, output_retention_days=0.001
    )
    answer = await service.thumbnails(JPEG)
    first = int(URL(answer.json["variations"][0]["exports"]["jpeg"]["url"]).query["expires"])
    await asyncio.sleep(1.1)
    status = (await service.get(f"/api/thumbnails/{answer.json['request_id']}")).json
    export = status["variations"][0]["exports"]["jpeg"]
    assert int(URL(export["url"]).query["expires"]) <= first
    assert (await service.get(export["url"])).status == 200


async def test_other_origins_may_send_and_read_the_headers_of_requests(serve: Serve) -> None:
    service = await serve(cors_origins="https://studio.example")
    preflight = {"Origin": "https://studio.example", "Access-Control-Request-Method": "POST"}
    got = await service.ask("OPTIONS", "/api/thumbnails", headers=preflight)
    allowed = {name.strip().lower() for name in got.headers["Access-Control-Allow-Headers"].split(",")}
    assert {"authorization", "content-type", "idempotency-key", "prefer", "last-event-id"} <= allowed
    got = await service.get("/api/thumbnails", Origin="https://studio.example")
    exposed = {name.strip().lower() for name in got.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"location", "preference-applied", "idempotency-replayed", "retry-after", "x-request-id"} <= exposed
    for method, path in (("DELETE", f"/api/thumbnails/{UNKNOWN}"), ("POST", f"/api/thumbnails/{UNKNOWN}/cancel")):
        got = await service.ask("OPTIONS", path, headers=preflight | {"Access-Control-Request-Method": method})
        assert method in got.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("request_id", [UNKNOWN, "req_1", "x" * 300, "%2e%2e", "%00", "%ff", "req_" + "0" * 31 + "%0a"])
async def test_changing_an_unknown_request_is_404(service: Running, method: str, request_id: str) -> None:
    paths = [""] if method == "DELETE" else ["/cancel", "/variations/var-1/exports"]
    for path in paths:
        assert_problem(await service.ask(method, f"/api/thumbnails/{request_id}{path}"), 404, "not_found")


@pytest.mark.parametrize("variation", ["var-0", "var-2", "var-01", "var-1%00", "1", "var-", "x" * 300, "%ff"])
async def test_an_unknown_variation_is_404(service: Running, variation: str) -> None:
    request_id = (await service.thumbnails(JPEG)).json["request_id"]
    path = f"/api/thumbnails/{request_id}/variations/{variation}"
    assert_problem(await service.get(f"{path}/raw"), 404, "not_found")
    assert_problem(await service.post(f"{path}/exports"), 404, "not_found")


@pytest.mark.parametrize("query", ["a=1", "from=2026-01-01&from=2026-01-01"])
async def test_parameters_of_other_routes_are_refused(service: Running, query: str) -> None:
    answers = [
        await service.get(f"/api/usage?{query}"),
        await service.ask("POST", f"/api/thumbnails/{UNKNOWN}/cancel?{query}"),
        await service.ask("DELETE", f"/api/thumbnails/{UNKNOWN}?{query}"),
        await service.get(f"/api/thumbnails/{UNKNOWN}/events?{query}"),
        await service.get(f"/api/thumbnails/{UNKNOWN}/variations/var-1/raw?{query}"),
    ]
    assert {answer.status for answer in answers} <= {400, 422}


async def test_removing_an_api_key_hides_its_requests_and_adding_it_again_shows_them(serve: Serve) -> None:
    keys = ["0123456789abcdef-one", "0123456789abcdef-two"]

    async def listed(*api_keys: str, of: str) -> list[str]:
        service = await serve(api_keys=",".join(api_keys))
        found = await service.get("/api/thumbnails", Authorization=f"Bearer {of}")
        return [each["request_id"] for each in found.json["requests"]]

    service = await serve(api_keys=",".join(keys))
    made = (await service.thumbnails(JPEG, headers={"Authorization": f"Bearer {keys[0]}"})).json["request_id"]
    assert await listed(keys[1], of=keys[1]) == []
    assert await listed(*keys, of=keys[0]) == [made]
    assert await listed(*keys, of=keys[1]) == []
