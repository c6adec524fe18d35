"""Many requests whose bodies are complete in the same moment, and when their calls reached the local Gemini."""

import asyncio
import time

import aiohttp

from bench.processes import Server
from bench.workload import CONTENT_TYPE

ANSWER_SECONDS = 300


async def arrivals(session: aiohttp.ClientSession, pictures: Server) -> list[float]:
    """When calls reached the local Gemini, on the monotonic clock, since this was last asked."""
    async with session.get(f"{pictures.url}/arrivals") as answer:
        times: list[float] = await answer.json()
        return times


async def post_at_once(server: Server, body: bytes, count: int) -> tuple[float, list[int]]:
    """POST /api/thumbnails on so many open connections; when the last byte was written, and the answers' statuses."""
    head = (
        f"POST /api/thumbnails HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)]
    for _, writer in streams:
        writer.write(head.encode() + body)
    await asyncio.gather(*(writer.drain() for _, writer in streams))
    complete = time.monotonic()
    async with asyncio.timeout(ANSWER_SECONDS):
        answers = await asyncio.gather(*(reader.read() for reader, _ in streams))
    for _, writer in streams:
        writer.close()
    return complete, [int(answer.split(maxsplit=2)[1]) if answer else 0 for answer in answers]
