"""What holds for several operations: paragraphs of CommonMark by their titles."""

from collections.abc import Mapping

ABOUT = "Scripts in, finished pictures out: each variation is kept as Gemini drew it, and exported in several formats."

NOTES: Mapping[str, str] = {
    "Bodies": """\
Unknown and repeated fields and query parameters are refused; an empty optional field, and `null` in JSON,
count as absent. In JSON a number, a boolean or a string stands for the field's text, `formats` may be a list,
and `max_bytes` an object such as `{"png": 200000}`. In forms `formats` may come several times.""",
    "Keys": """\
Where API keys are set, every operation that names them wants `Authorization: Bearer …`. Where none are set,
the Host of a request must be loopback, localhost or that of `PUBLIC_URL`, and so must the Origin of a POST,
unless `CORS_ORIGINS` has it.""",
    "Request ids": """\
Every answer has `X-Request-Id`, and the log has the same id. A client may send its own, of 1 to 64 of the
characters `A-Za-z0-9._-`, and a `traceparent` (W3C Trace Context). The id of an order, which `request_id` holds, is
always made by the service.""",
    "Idempotent requests": """\
A client that lost its connection sends the same request with the same `Idempotency-Key` again: while the
request runs, the repetition waits for its answer; afterwards it gets the stored answer. Either has
`Idempotency-Replayed: true`, and no call is paid twice. A body is the same when its non-empty fields have the
same values and its files the same bytes.

A request that is refused does not use up its key; nor does one that has ended and certainly cost nothing.
With a key the request continues when its client disconnects; without one, the calls that were not sent yet
are cancelled.""",
    "Byte budgets": """\
No file is larger than its `max_bytes`. First the format is made as asked for. Then JPEG, lossy WebP and AVIF
get a lower quality, down to 10, and PNG a palette of at least 16 colours. With `allow_resize` these steps end
at 40 and 64, and the finished picture is scaled down in its own ratio. Otherwise the format is left out with
the warning `over_budget`. The export's `quality`, `colors`, `width` and `height` say what became of it.""",
    "Animations": """\
GIF, APNG and animated WebP are animations if they have more than one frame. In `/api/exports` with
`animate=keep` WebP, AVIF, GIF and PNG have every frame, and JPEG the first one; everywhere else the first frame
counts. More than `MAX_ANIMATION_FRAMES` frames, or more than `MAX_ANIMATION_PIXELS` pixels in all frames together,
are 422 `too_many_pixels`.""",
    "Provenance": """\
Every export of a generated picture has an XMP packet with the IPTC property `DigitalSourceType`:
`compositeWithTrainedAlgorithmicMedia` where a base was blended under it, otherwise `trainedAlgorithmicMedia`.
The exports of an uploaded picture have it if the picture or its base does, or always with
`provenance=generated`.""",
    "Problems": """\
Every error is `application/problem+json` (RFC 9457), but under `/v1`, where it has the form of OpenAI's API.
`billed` is true when a picture came or Gemini counted tokens for one, false when nothing was drawn, null when
that is unknown; `retryable` is true only beside `billed: false`. When no variation succeeded, `errors` lists
each, and the status is the first of these that any of them has: 507, 504, 502, 429, 503, 422, 409.""",
}


def anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def as_commonmark() -> str:
    """All of it."""
    return "\n\n".join([ABOUT, *(f"## {title}\n\n{text}" for title, text in NOTES.items())])
