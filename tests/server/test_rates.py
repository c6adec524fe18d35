"""Rates of API keys over HTTP: what is counted, what the headers say, and that they hold over two services."""

import asyncio
import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from service.ledger import buckets
from service.ledger.ledger import LedgerAccess
from tests.conftest import Serve
from tests.helpers import Answer, Running, assert_problem, fill_up, small_disk
from tests.ledger.conftest import access, postgres_url

__all__ = ["access", "postgres_url"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE, TWO, PLAIN = "one-0123456789abcdef", "two-0123456789abcdef", "plain-0123456789abcdef"
LEFT = re.compile(r'"key";r=([0-9]+);t=([0-9]+)')


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "TIMEOUT_SECONDS", 30)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Writes one key with a rate of three requests an hour, and others."""
    path = tmp_path / "keys"
    path.write_text(f"app:{ONE} rate=3/h\napp:{TWO}\nplain:{PLAIN}\nother:other-0123456789abcdef rate=1/h\n")
    return path


async def ask(service: Running, key: str, method: str = "GET", path: str = "/api/thumbnails", **more: Any) -> Answer:
    return await service.ask(method, path, headers={"Authorization": f"Bearer {key}"}, **more)


def left(answer: Answer) -> tuple[int, int]:
    match = LEFT.fullmatch(answer.headers["RateLimit"])
    assert match
    return int(match[1]), int(match[2])


async def test_over_its_rate_a_name_is_429_and_told_when_to_come_again(serve: Serve, keys: Path) -> None:
    service = await serve(api_keys_file=keys)
    answers = [await ask(service, key) for key in (ONE, TWO, ONE)]
    assert [answer.status for answer in answers] == [200] * 3
    assert [left(answer)[0] for answer in answers] == [2, 1, 0]
    refused = await ask(service, TWO)
    problem = assert_problem(refused, 429, "rate_limited", "3 requests in 3600 seconds")
    assert (problem["retryable"], problem["billed"]) == (True, False)
    assert refused.headers["RateLimit-Policy"] == '"key";q=3;w=3600'
    assert left(refused) == (0, int(refused.headers["Retry-After"]))
    assert 1190 < left(refused)[1] <= 1200
    assert ONE not in refused.body.decode()


async def test_a_key_without_a_rate_and_open_paths_are_not_counted(serve: Serve, keys: Path) -> None:
    service = await serve(api_keys_file=keys)
    for _ in range(5):
        answer = await ask(service, PLAIN)
        assert (answer.status, "RateLimit" in answer.headers) == (200, False)
        for path in ("/healthz", "/", "/static/output/x.png", "/favicon.ico"):
            answer = await ask(service, ONE, path=path)
            assert answer.status in (200, 404)
            assert not {"RateLimit", "RateLimit-Policy"} & set(answer.headers)
    assert left(await ask(service, ONE)) == (2, 1200)


async def test_refused_requests_count_like_others(serve: Serve, keys: Path) -> None:
    service = await serve(api_keys_file=keys)
    first = await ask(service, ONE, path="/nowhere")
    second = await ask(service, ONE, "DELETE", "/metrics")
    third = await ask(service, ONE, "POST", "/api/exports", data=b"")
    assert [(answer.status, left(answer)[0]) for answer in (first, second, third)] == [(404, 2), (405, 1), (415, 0)]
    assert_problem(await ask(service, ONE, path="/nowhere"), 429, "rate_limited")
    assert_problem(await ask(service, "wrong-key-0123456789"), 401, "unauthorized")


async def test_over_its_rate_a_request_is_refused_before_its_body_is_read(serve: Serve, keys: Path) -> None:
    service = await serve(api_keys_file=keys)
    while (await ask(service, ONE)).status == 200:
        pass
    head = f"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ONE}\r\n"
    body = "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n"
    for expect in ("", "Expect: 100-continue\r\n"):
        answer = await service.raw(f"{head}{body}{expect}\r\n".encode())
        assert_problem(answer, 429, "rate_limited")


async def test_the_metrics_count_what_was_refused_by_name(serve: Serve, keys: Path) -> None:
    service = await serve(api_keys_file=keys)
    for _ in range(3):
        await ask(service, "other-0123456789abcdef")
    text = (await ask(service, PLAIN, path="/metrics")).body.decode()
    assert 'image_export_rate_limited_total{key="other"} 2.0' in text


async def test_a_hundred_racing_requests_get_no_more_than_the_rate_of_two_services(
    serve: Serve, tmp_path: Path, access: LedgerAccess
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"app:{ONE} rate=40/h\napp:{TWO}\n")
    shared: dict[str, Any] = {"api_keys_file": path, "database_url": access.url or None}
    both = [await serve(**shared), await serve(**shared)]
    answers = await asyncio.gather(*(ask(both[n % 2], (ONE, TWO)[n // 2 % 2], path="/nowhere") for n in range(100)))
    statuses = [answer.status for answer in answers]
    assert (statuses.count(404), statuses.count(429)) == (40, 60)
    assert sorted(left(answer)[0] for answer in answers if answer.status == 404) == list(range(40))


async def test_on_a_full_disk_a_service_counts_for_itself(
    serve: Serve, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(buckets, "RETRY_SECONDS", 0)
    with small_disk(tmp_path / "disk", 8) as disk:
        service = await serve(api_keys_file=keys, ledger_dir=disk / "ledger")
        await asyncio.to_thread(fill_up, disk)
        statuses = [(await ask(service, ONE, path="/nowhere")).status for _ in range(5)]
        assert statuses == [404, 404, 404, 429, 429]
        assert "rates are counted by each process for itself" in caplog.text
        (disk / "of-another-process").unlink()
        assert (await ask(service, "other-0123456789abcdef", path="/nowhere")).status == 404
        assert "rates are counted together again" in caplog.text


async def test_a_ledger_that_another_process_has_locked_delays_no_count(serve: Serve, keys: Path) -> None:
    service = await serve(api_keys_file=keys)
    with contextlib.closing(
        sqlite3.connect(service.settings.ledger_directory / "ledger.db", isolation_level=None)
    ) as held:
        held.execute("BEGIN IMMEDIATE")
        answers = [await ask(service, ONE, path="/nowhere") for _ in range(4)]
    assert [answer.status for answer in answers] == [404, 404, 404, 429]


async def test_a_web_page_may_read_the_headers(serve: Serve, keys: Path) -> None:
    service = await serve(api_keys_file=keys, cors_origins="https://app.example")
    headers = {"Authorization": f"Bearer {ONE}", "Origin": "https://app.example"}
    answer = await service.ask("GET", "/api/thumbnails", headers=headers)
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)
