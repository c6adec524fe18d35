"""The table of operations: what each route does, takes and answers."""

from collections.abc import Mapping

from service import errors
from service.imaging.formats import FORMATS, READABLE, TABLE
from service.schemas import openai_table, table
from service.schemas.answers import ExportsAnswer, HealthAnswer, ReadyAnswer, ThumbnailsAnswer
from service.schemas.media_types import JSON, MULTIPART, URLENCODED
from service.schemas.openai_answers import CompletedEvent, ErrorEvent, ImagesAnswer, ModelAnswer, ModelList
from service.schemas.openapi import examples, parameters, problems
from service.schemas.openapi.operation import EVENT_STREAM, Body, File, Operation, Success
from service.schemas.openapi.parameters import HEADERS
from service.schemas.status import EVENTS, StatusAnswer, StatusList
from service.schemas.usage import UsageAnswer

TAGS: Mapping[str, str] = {
    "thumbnails": "Requests that generate pictures with Gemini.",
    "exports": "The pipeline alone: pictures in, exports out.",
    "OpenAI": "The images API of OpenAI, for its clients. Errors have its form.",
    "files": "Finished files.",
    "usage": "Calls and money.",
    "operations": "The state of the service.",
    "pages": "Pages for people, and this description.",
}

_PICTURES = tuple(TABLE[name].mime for name in FORMATS)
_FILE_HEADERS = tuple(HEADERS[name] for name in ("ETag", "Accept-Ranges", "Cache-Control"))
_CONTENT_HEADERS = (*_FILE_HEADERS, HEADERS["Content-Disposition"])


def _file_answers(types: tuple[str, ...]) -> tuple[Success, ...]:
    return (
        Success(200, "The file", types=types, headers=_CONTENT_HEADERS),
        Success(206, "A part of the file", types=types, headers=(*_CONTENT_HEADERS, HEADERS["Content-Range"])),
        Success(304, "The client's copy is the file", headers=_FILE_HEADERS),
    )


_BASE = "A picture that is blended under the result"
_REPLAYED = (HEADERS["Idempotency-Replayed"],)

_ANY_TYPE = (MULTIPART, JSON, URLENCODED)

THUMBNAILS = Body(
    "Thumbnails",
    lambda settings: table.thumbnails(settings.max_variations),
    examples.ORDER,
    (File("image", f"{_BASE}, and sent along as a reference: {READABLE}"),),
    _ANY_TYPE,
)
EXPORTS = Body(
    "Exports",
    lambda _: table.PICTURE,
    {"formats": "jpeg", "width": 640},
    (File("image", f"The picture: {READABLE}", required=True), File("base", f"{_BASE}: {READABLE}")),
)
EXPORT_AGAIN = Body(
    "ExportAgain",
    lambda _: table.EXPORTS,
    {"formats": "webp", "webp_quality": 90},
    (File("base", f"{_BASE}, in place of the original one: {READABLE}"),),
    _ANY_TYPE,
)
IMAGES = Body(
    "Images",
    lambda settings: openai_table.images(settings.max_variations),
    examples.IMAGES_ORDER,
    types=(JSON,),
)
EDITS = Body(
    "ImageEdits",
    lambda settings: openai_table.images(settings.max_variations),
    examples.IMAGES_ORDER,
    (File("image", f"The reference, also called `image[]`: {READABLE}", required=True),),
)

_ORDER_ERRORS = (
    *problems.BODY, errors.MissingField, errors.InvalidIdempotencyKey, errors.IdempotencyMismatch, errors.Deleted,
    errors.UnpricedModel, errors.BudgetExhausted, errors.NotFound,
)  # fmt: skip
_IMAGES = Success(
    200,
    "The pictures; with `stream=true` as server-sent events: one `image_generation.completed` (CompletedEvent) for each"
    " picture, then an `error` (ErrorEvent) for each that failed",
    ImagesAnswer,
    events={
        "image_generation.completed": CompletedEvent,
        "image_edit.completed": CompletedEvent,
        "error": ErrorEvent,
    },
    headers=_REPLAYED,
    examples={JSON: examples.IMAGES, EVENT_STREAM: examples.IMAGE_EVENTS},
)

OPERATIONS: Mapping[str, Operation] = {
    "thumbnails": Operation(
        "thumbnails",
        "Make thumbnails of a script",
        about="A script becomes variations, each kept as Gemini drew it and exported. Answers when all have ended, with"
        " 200 if at least one succeeded.",
        parameters=(parameters.IDEMPOTENCY_KEY, parameters.PREFER),
        body=THUMBNAILS,
        answers=(
            Success(200, "The variations", ThumbnailsAnswer, headers=_REPLAYED, examples={JSON: examples.THUMBNAILS}),
            Success(
                202,
                "The status of a request that continues in the background",
                StatusAnswer,
                headers=(HEADERS["Location"], HEADERS["Preference-Applied"], *_REPLAYED),
                examples={JSON: examples.STATUS},
            ),
        ),
        errors=(
            *problems.BODY,
            *problems.PICTURES,
            errors.MissingField,
            errors.InvalidIdempotencyKey,
            errors.IdempotencyMismatch,
            errors.Deleted,
            errors.UnpricedModel,
            errors.BudgetExhausted,
            errors.NotFound,
        ),
        variation_errors=problems.VARIATIONS,
    ),
    "exports": Operation(
        "exports",
        "Export a picture",
        about="One uploaded picture becomes exports, without Gemini.",
        body=EXPORTS,
        answers=(Success(200, "The exports", ExportsAnswer, examples={JSON: examples.EXPORTS}),),
        errors=(*problems.BODY, *problems.PICTURES, *problems.EXPORTS, errors.MissingField),
    ),
    "requests": Operation(
        "thumbnails",
        "List requests",
        about="The caller's requests, newest first.",
        parameters=(parameters.LIMIT, parameters.BEFORE, parameters.BY_KEY),
        answers=(Success(200, "The requests", StatusList, examples={JSON: {"requests": [examples.STATUS]}}),),
        errors=(*problems.QUERY, *problems.LEDGER, errors.InvalidField, errors.NotFound),
    ),
    "request": Operation(
        "thumbnails",
        "Show the status of a request",
        parameters=(parameters.REQUEST,),
        answers=(Success(200, "The status", StatusAnswer, examples={JSON: examples.STATUS}),),
        errors=(*problems.QUERY, *problems.LEDGER),
    ),
    "delete": Operation(
        "thumbnails",
        "Delete a request",
        about="Removes the files and the text of a request that has ended; its costs stay.",
        parameters=(parameters.REQUEST,),
        answers=(Success(204, "It is deleted"),),
        errors=(*problems.QUERY, *problems.LEDGER, errors.StillRunning),
    ),
    "cancel": Operation(
        "thumbnails",
        "Cancel a request",
        about="Cancels the calls that were not sent yet.",
        parameters=(parameters.REQUEST,),
        answers=(Success(200, "The status", StatusAnswer, examples={JSON: examples.STATUS}),),
        errors=(*problems.QUERY, *problems.LEDGER),
    ),
    "events": Operation(
        "thumbnails",
        "Follow a request",
        about="Its progress as server-sent events. Each has an `id` that counts from 1, a name, and one line of JSON as"
        " its data: `sent` (SentEvent), `received` (ReceivedEvent), `exported` (ExportedEvent) and `failed`"
        " (FailedEvent) for each variation, then `done` (DoneEvent), with which the stream ends. A comment is sent"
        " every `SSE_HEARTBEAT_SECONDS`. A picture that is recovered after `done`, because of a crash, appends its"
        " events and another `done`.",
        parameters=(parameters.REQUEST, parameters.LAST_EVENT_ID, parameters.LAST_EVENT),
        answers=(
            Success(
                200,
                "The events",
                events={str(kind): model for kind, model in EVENTS.items()},
                headers=(HEADERS["Cache-Control"],),
                examples={EVENT_STREAM: examples.EVENTS},
            ),
            Success(204, "The request has ended, and there is no event after `Last-Event-ID`"),
        ),
        errors=(*problems.QUERY, *problems.LEDGER),
    ),
    "export_again": Operation(
        "exports",
        "Export a generated picture again",
        about="No call to Gemini, no cost. Absent fields are as in the original request. `width` and `height` are one"
        " setting, and so are all numbers of `max_bytes`; the original `focus` does not count with another `fit` than"
        " `cover`.",
        parameters=(parameters.REQUEST, parameters.VARIATION),
        body=EXPORT_AGAIN,
        answers=(Success(200, "The exports", ExportsAnswer, examples={JSON: examples.EXPORTS}),),
        errors=(*problems.BODY, *problems.PICTURES, *problems.EXPORTS, errors.NoRaw, errors.RawGone),
    ),
    "raw": Operation(
        "files",
        "Download a picture as Gemini sent it",
        about="Or the whole reply, if no picture was found in it.",
        parameters=(parameters.REQUEST, parameters.VARIATION, *parameters.CONDITIONS),
        answers=_file_answers((*_PICTURES, "application/octet-stream")),
        errors=(*problems.QUERY, *problems.LEDGER, *problems.FILE, errors.NoRaw, errors.RawGone),
    ),
    "usage": Operation(
        "usage",
        "Show calls and money per day",
        parameters=(parameters.FIRST, parameters.LAST),
        answers=(Success(200, "The usage", UsageAnswer, examples={JSON: examples.USAGE}),),
        errors=(*problems.QUERY, *problems.LEDGER, errors.InvalidField),
    ),
    "openai_generations": Operation(
        "OpenAI",
        "Make pictures of a prompt",
        about="As OpenAI's API does. The request is one of the ledger, which `GET /api/thumbnails` shows.",
        parameters=(parameters.IDEMPOTENCY_KEY, parameters.RETRY_COUNT),
        body=IMAGES,
        answers=(_IMAGES,),
        errors=_ORDER_ERRORS,
        variation_errors=problems.VARIATIONS,
    ),
    "openai_edits": Operation(
        "OpenAI",
        "Make pictures of a prompt and a picture",
        about="As OpenAI's API does. Gemini is sent the picture as the reference; it is not blended under the result.",
        parameters=(parameters.IDEMPOTENCY_KEY, parameters.RETRY_COUNT),
        body=EDITS,
        answers=(_IMAGES,),
        errors=(*_ORDER_ERRORS, *problems.PICTURES),
        variation_errors=problems.VARIATIONS,
    ),
    "openai_models": Operation(
        "OpenAI",
        "List the models",
        answers=(Success(200, "The models", ModelList, examples={JSON: examples.MODELS}),),
        errors=problems.QUERY,
    ),
    "openai_model": Operation(
        "OpenAI",
        "Show a model",
        parameters=(parameters.MODEL,),
        answers=(Success(200, "The model", ModelAnswer, examples={JSON: examples.MODEL}),),
        errors=problems.QUERY,
    ),
    "static": Operation(
        "files",
        "Download an export",
        about="While `SIGN_URLS=false`; 404 otherwise.",
        parameters=(parameters.EXPORT_NAME, *parameters.CONDITIONS),
        answers=_file_answers(_PICTURES),
        errors=problems.FILE,
    ),
    "signed": Operation(
        "files",
        "Download an export by a signed link",
        about="While `SIGN_URLS=true`; 404 otherwise.",
        parameters=(parameters.EXPORT_NAME, parameters.EXPIRES, parameters.SIGNATURE, *parameters.CONDITIONS),
        answers=_file_answers(_PICTURES),
        errors=(*problems.FILE, errors.BadSignature, errors.LinkExpired),
    ),
    "healthz": Operation(
        "operations",
        "Ask whether the process answers",
        answers=(Success(200, "It does", HealthAnswer, examples={JSON: {"status": "ok"}}),),
    ),
    "readyz": Operation(
        "operations",
        "Ask whether the service can work",
        answers=(Success(200, "It can", ReadyAnswer, examples={JSON: examples.READY}),),
        errors=(errors.NotReady,),
    ),
    "metrics": Operation(
        "operations",
        "Read the metrics",
        about="In the text format of Prometheus, or as OpenMetrics if `Accept` prefers that.",
        answers=(Success(200, "The metrics", types=("text/plain", "application/openmetrics-text")),),
    ),
    "studio": Operation(
        "pages",
        "Open the studio",
        about="A web page with a form.",
        answers=(Success(200, "The page", types=("text/html",)),),
    ),
    "studio_file": Operation(
        "pages",
        "Load a file of the studio",
        parameters=(parameters.STUDIO_FILE,),
        answers=(Success(200, "The file", types=("text/html", "text/css", "text/javascript", "image/svg+xml")),),
    ),
    "openapi": Operation(
        "pages",
        "Read this description",
        about="OpenAPI 3.1, made from the tables by which the service works.",
        parameters=(parameters.IF_NONE_MATCH,),
        answers=(
            Success(200, "The description", types=("application/json",), headers=(HEADERS["ETag"],)),
            Success(304, "The client's copy is current", headers=(HEADERS["ETag"],)),
        ),
    ),
    "docs": Operation(
        "pages",
        "Read this description as a page",
        parameters=(parameters.IF_NONE_MATCH,),
        answers=(
            Success(200, "The page", types=("text/html",), headers=(HEADERS["ETag"],)),
            Success(304, "The client's copy is current", headers=(HEADERS["ETag"],)),
        ),
    ),
}
