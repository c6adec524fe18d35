"""Clients that send a request again by themselves: each picture that is wanted is paid once."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import openai
import pytest

from service.schemas.headers import is_retry
from service.server.keys import JOBS
from tests.conftest import Serve
from tests.handlers.openai_clients import KEY, PROMPT, client_of, pictures
from tests.handlers.test_idempotency import Gate
from tests.helpers import Answer, QuickEmulator, Running, picture_bytes, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

GENERATIONS = "/v1/images/generations"
SMALL = "64x64"
BODY = {"prompt": PROMPT, "size": SMALL}


class Proxy:
    """Forwards connections to a service; of each of the first ones, only so many bytes of the answer."""

    def __init__(self, service: Running, *cuts: int) -> None:
        self._service = service
        self._cuts = list(cuts)
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0

    @contextlib.asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            yield f"http://{host}:{port}"
            self.cut()

    def cut(self) -> None:
        """Break all connections, on both sides."""
        for writer in self._open:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        most = self._cuts.pop(0) if self._cuts else None
        upstream, to_upstream = await asyncio.open_connection(self._service.host, self._service.port)
        ends = {writer, to_upstream}
        self._open |= ends
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(
                [asyncio.ensure_future(each) for each in (_pump(reader, to_upstream), _pump(upstream, writer, most))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        self._open -= ends
        for end in ends:
            end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None = None) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data if most is None else data[:most])
            await writer.drain()
            if most is not None and (most := most - len(data)) <= 0:
                return


async def post(
    service: Running, retry: object = None, body: Mapping[str, Any] = BODY, headers: Mapping[str, str] | None = None
) -> Answer:
    counted = {} if retry is None else {"x-stainless-retry-count": str(retry)}
    return await service.post_body(GENERATIONS, json.dumps(body), "application/json", {**counted, **(headers or {})})


def replayed(answer: Answer) -> bool:
    return answer.headers.get("Idempotency-Replayed") == "true"


@pytest.mark.parametrize("cut", [0, 30, 400, 600])
async def test_an_answer_that_is_cut_is_sent_again_and_paid_once(serve: Serve, cut: int) -> None:
    service = await serve()
    proxy = Proxy(service, cut)
    async with proxy.url() as url, client_of(service, url, max_retries=2) as client:
        answer = await client.images.generate(prompt=PROMPT, size=SMALL)
    assert len(pictures(answer)) == 1
    assert (proxy.connections, service.emulator.requests) == (2, 1)


async def test_a_client_that_times_out_finds_the_running_request(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    async with client_of(service, max_retries=3, timeout=0.5) as client:
        wanted = asyncio.create_task(client.images.generate(prompt=PROMPT, size=SMALL))
        await until(lambda: service.emulator.requests == 1)
        await asyncio.sleep(0.7)
        gate.open.set()
        assert len(pictures(await wanted)) == 1
    assert service.emulator.requests == 1


async def test_a_time_out_without_a_retry_is_told_and_the_request_goes_on(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    async with client_of(service, timeout=0.5) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.images.generate(prompt=PROMPT, size=SMALL, n=2)
    gate.open.set()
    await until(lambda: not service.app[JOBS].running)
    [request] = (await service.get("/api/thumbnails")).json["requests"]
    assert (request["state"], len(request["variations"])) == ("succeeded", 2)


async def test_equal_requests_that_are_cut_together_get_a_picture_each(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    proxy = Proxy(service)
    async with proxy.url() as url, client_of(service, url, max_retries=2) as client:
        wanted = [asyncio.create_task(client.images.generate(prompt=PROMPT, size=SMALL)) for _ in range(3)]
        await until(lambda: service.emulator.requests == 3)
        proxy.cut()
        await until(lambda: proxy.connections == 6)
        gate.open.set()
        answers = await asyncio.gather(*wanted)
    assert service.emulator.requests == 3
    assert len({answer.data[0].b64_json for answer in answers if answer.data}) == 3


async def test_an_edit_that_is_cut_is_paid_once(serve: Serve) -> None:
    service = await serve()
    async with Proxy(service, 0).url() as url, client_of(service, url, max_retries=2) as client:
        answer = await client.images.edit(image=picture_bytes(), prompt=PROMPT, size=SMALL)
    assert (len(pictures(answer)), service.emulator.requests) == (1, 1)
    # The upload of the retry is removed once its answer is sent.
    await until(lambda: len(service.area("uploads")) == 1)


async def test_a_retry_answers_what_was_answered(serve: Serve) -> None:
    service = await serve()
    first = await post(service)
    with service.nothing_spent_or_left():
        again = [await post(service, count) for count in (1, 2)]
    assert [(each.status, each.body, replayed(each)) for each in again] == [(200, first.body, True)] * 2
    assert not replayed(first)


@pytest.mark.parametrize("count", ["1", "02", " 3 ", "9" * 30])
async def test_every_number_above_zero_counts_retries(count: str) -> None:
    assert is_retry([count])


@pytest.mark.parametrize("count", [None, 0, "", "x", "-1", "1.0"])
async def test_without_a_count_of_retries_it_is_a_new_request(serve_all: Serve, count: object) -> None:
    service = await serve_all()
    before = service.emulator.requests
    answers = [await post(service, each) for each in (None, count)]
    assert service.emulator.requests == before + 2
    assert not any(map(replayed, answers))


async def test_another_body_or_caller_is_a_new_request(serve: Serve) -> None:
    other = f"{KEY}-too"
    service = await serve(api_keys=f"{KEY},{other}")
    mine, others = ({"Authorization": f"Bearer {key}"} for key in (KEY, other))
    await post(service, headers=mine)
    answers = [await post(service, 1, headers=others), await post(service, 1, BODY | {"n": 2}, mine)]
    assert not any(map(replayed, answers))
    assert replayed(await post(service, 1, BODY | {"quality": None}, mine))


async def test_a_request_that_surely_cost_nothing_is_made_again(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["bad_key", "drop"]))
    assert (await post(service)).status == 502
    lost = await post(service, 1)
    assert (lost.json["error"]["code"], replayed(lost)) == ("outcome_unknown", False)
    again = await post(service, 2)
    assert (again.status, again.body, replayed(again)) == (502, lost.body, True)
    assert service.emulator.requests == 2


async def test_of_equal_requests_a_retry_joins_the_one_that_was_not_delivered(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    lost = asyncio.create_task(post(service))
    await until(lambda: service.emulator.requests == 1)
    lost.cancel()
    gate.open.set()
    await until(lambda: not service.app[JOBS].running)
    delivered = await post(service)
    first, second = await post(service, 1), await post(service, 1)
    assert first.body != delivered.body
    assert second.body == delivered.body
    assert service.emulator.requests == 2


async def test_a_key_is_asked_before_the_count_of_retries(serve: Serve) -> None:
    service = await serve()
    keyed = {"Idempotency-Key": "a"}
    first = await post(service, headers=keyed)
    assert (await post(service, 1, headers=keyed)).body == first.body
    other = await post(service, 1, headers={"Idempotency-Key": "b"})
    assert not replayed(other)
    mismatch = await post(service, 1, BODY | {"n": 2}, keyed)
    assert (mismatch.status, mismatch.json["error"]["code"]) == (400, "idempotency_mismatch")


async def test_retries_that_race_share_one_request(serve: Serve) -> None:
    service = await serve()
    answers = await asyncio.gather(*(post(service, 1) for _ in range(10)))
    assert service.emulator.requests == 1
    assert {answer.body for answer in answers} == {answers[0].body}
    assert sum(map(replayed, answers)) == 9


async def test_a_retry_joins_a_request_of_another_server_on_the_same_ledger(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    other = await serve()
    first = asyncio.create_task(post(service))
    await until(lambda: service.emulator.requests == 1)
    retry = asyncio.create_task(post(other, 1))
    await asyncio.sleep(0.3)
    gate.open.set()
    assert (await retry).body == (await first).body
    assert other.emulator.requests == 0
