"""Clients of a service that may die at any moment, and what its API says of all requests afterwards."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos.process import Service
from tests.helpers import CONTENT_TYPE, Field, form, picture_bytes, upload

CLIENT_SECONDS = 60.0
# A request may wait behind others; without any progress for this long it has been forgotten.
STUCK_SECONDS = 60.0
# A client with a key comes again this often, and as long as the service is away.
REPEATS = 40
REPEAT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    json: Any


@dataclass(frozen=True, slots=True)
class Export:
    """An export that a client was told of."""

    path: str
    sha256: str


def thumbnails_form(number: int, *fields: Field, count: int = 1) -> bytes:
    """The form of request `number`, whose script is its own: the bill tells requests apart by their scripts."""
    return form(("script", f"script {number}"), ("count", str(count)), ("formats", "jpeg,avif"), *fields)


async def post(service: Service, body: bytes, headers: Mapping[str, str]) -> Answer | None:
    """POST /api/thumbnails; None if the connection failed or the answer was cut."""
    timeout = aiohttp.ClientTimeout(total=CLIENT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers={"Content-Type": CONTENT_TYPE, **headers}) as session,
            session.post(f"{service.url}/api/thumbnails", data=body) as got,
        ):
            return Answer(got.status, await got.json(content_type=None))
    except (aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError):
        return None


@dataclass(slots=True)
class Client:
    """Makes requests at random: plain, with a key (repeated until answered), and asynchronous (followed to the end)."""

    service: Service
    choose: random.Random
    exports: list[Export] = field(default_factory=list)
    answers: int = 0

    async def ask(self, number: int) -> None:
        kind = self.choose.choice(("plain", "keyed", "async"))
        headers = {} if kind == "plain" else {"Idempotency-Key": f"key-{number}"}
        if kind == "async":
            headers["Prefer"] = "respond-async"
        base = [upload(picture_bytes((320, 180)))] if self.choose.random() < 0.3 else []
        body = thumbnails_form(number, *base, count=self.choose.randint(1, 3))
        for _ in range(1 if kind == "plain" else REPEATS):
            answer = await post(self.service, body, headers)
            if answer and self._note(answer):
                break
            await asyncio.sleep(REPEAT_SECONDS)
        if answer and answer.status == 202:
            await self._follow(answer.json["request_id"])

    async def _follow(self, request_id: str) -> None:
        """Ask for the status of an asynchronous request until it has ended."""
        deadline = time.monotonic() + CLIENT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                status = await get(f"{self.service.url}/api/thumbnails/{request_id}")
                if status["state"] != "running":
                    self.exports += exports_of(status["variations"])
                    return
            await asyncio.sleep(REPEAT_SECONDS)

    def _note(self, answer: Answer) -> bool:
        """Remember what was acknowledged; returns whether the answer is final."""
        self.answers += 1
        if answer.status == 200:
            self.exports += exports_of(answer.json["variations"])
        return answer.status < 500 or answer.status == 502


def exports_of(variations: Sequence[Mapping[str, Any]]) -> list[Export]:
    return [
        Export(export["file_path"], export["sha256"])
        for variation in variations
        for export in variation["exports"].values()
    ]


async def get(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        got.raise_for_status()
        return await got.json()


async def statuses(service: Service) -> list[dict[str, Any]]:
    """Every request that the service knows, page by page."""
    found: list[dict[str, Any]] = []
    before = ""
    while page := (await get(f"{service.url}/api/thumbnails?limit=100{before}"))["requests"]:
        found += page
        before = f"&before={page[-1]['request_id']}"
    return found


async def settled(service: Service) -> list[dict[str, Any]]:
    """The requests once none is running, or nothing has happened for STUCK_SECONDS."""
    before, deadline = -1, 0.0
    while True:
        found = await statuses(service)
        running = sum(each["state"] == "running" for each in found)
        if running != before:
            before, deadline = running, time.monotonic() + STUCK_SECONDS
        if not running or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.2)
