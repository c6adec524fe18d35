"""Pictures as server-sent events, each as soon as it is ready, for clients of the OpenAI images API."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from aiohttp import web

from service.errors import ServiceError
from service.handlers.embedding import opened, write
from service.handlers.events import EVENT_STREAM
from service.handlers.submitting import Outcome, outcomes_so_far
from service.jobs.job import EDITS, Job
from service.ledger.rows import RequestRow
from service.schemas.openai import ImageRequest
from service.schemas.openai_answers import CompletedKind, completed_event, error_event, split_at_placeholders
from service.store.local import StoredFile


async def stream_images(
    request: web.Request, wanted: ImageRequest, row: RequestRow, job: Job | None, headers: Mapping[str, str]
) -> web.StreamResponse | Outcome:
    """Send each picture as an event, then an event for each that failed.

    Returns the outcome, and sends nothing, if no picture succeeded before anything had to be sent.
    """
    stream, done = _EventStream(request, headers), set[int]()
    try:
        async with aclosing(outcomes_so_far(request, row, job)) as outcomes:
            async for outcome in outcomes:
                if outcome is None:
                    await stream.send((b":\n\n",))
                    continue
                for number in sorted(outcome.variations.keys() - done):
                    await _send_picture(request, stream, wanted, row, outcome, number)
                    done.add(number)
                last = outcome
    except ServiceError as error:
        if not stream.begun:
            raise
        await stream.send_json("error", split_at_placeholders(error_event(error)))
        return await stream.end()
    if not stream.begun:
        return last
    errors = [last.errors[number] for number in sorted(last.errors)] or ([] if done else [last.error])
    for each in errors:
        await stream.send_json("error", split_at_placeholders(error_event(each)))
    return await stream.end()


async def _send_picture(
    request: web.Request,
    stream: "_EventStream",
    wanted: ImageRequest,
    row: RequestRow,
    outcome: Outcome,
    number: int,
) -> None:
    variation = outcome.variations[number]
    kind: CompletedKind = "image_edit.completed" if row.route == EDITS else "image_generation.completed"
    event = completed_event(kind, variation, wanted.format, outcome.image_size(wanted.order), row.created)
    async with opened(request, [variation.exports[wanted.format]]) as files:
        await stream.send_json(kind, split_at_placeholders(event), files)


class _EventStream:
    """A response of server-sent events, which begins with the first of them."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self._response = web.StreamResponse(headers={**EVENT_STREAM, **headers})

    @property
    def begun(self) -> bool:
        return self._response.prepared

    async def send_json(self, event: str, texts: Sequence[bytes], files: Sequence[StoredFile] = ()) -> None:
        """An event whose data is one line of JSON: `texts` with a file between each two of them."""
        framed = [*texts]
        framed[0] = f"event: {event}\ndata: ".encode() + framed[0]
        framed[-1] += b"\n\n"
        await self.send(framed, files)

    async def send(self, texts: Sequence[bytes], files: Sequence[StoredFile] = ()) -> None:
        await self._response.prepare(self._request)
        await write(self._request, self._response, texts, files)

    async def end(self) -> web.StreamResponse:
        await self._response.write_eof()
        return self._response
