"""Examples of bodies and answers."""

from typing import Any

from service.schemas.openapi.parameters import REQUEST_ID

ORDER = {"script": "My awesome video", "aspect_ratio": "16:9", "count": 2, "formats": "png,jpeg"}

_AT = "2026-11-26T10:00:00.123456+00:00"
_SHA256 = "a0887cf9a5b2c1f4b2d1c30e6b1b2f0b3a6a7f4d94c2b77d8b6c5e9f1d3a4c5e"
_RAW = f"generated/{REQUEST_ID}_1.png"


def _export(label: str, suffix: str, mime: str, size: int, quality: int | None) -> dict[str, Any]:
    key = f"output/export_e503dda799299252427bffe7112a21e5{suffix}"
    return {
        "format": label,
        "url": f"/static/{key}",
        "file_path": key,
        "size": size,
        "exported_at": _AT,
        "width": 1280,
        "height": 720,
        "content_type": mime,
        "sha256": _SHA256,
        "quality": quality,
        "colors": None,
        "frames": 1,
    }


_EXPORTS = {
    "png": _export("PNG", ".png", "image/png", 189_239, None),
    "jpeg": _export("JPEG", ".jpg", "image/jpeg", 61_024, 85),
}
_PICTURE = {
    "width": 1376,
    "height": 768,
    "mime_type": "image/png",
    "sha256": _SHA256,
    "normalized_to": [1280, 720],
    "composited": False,
    "c2pa": False,
}
_VARIATION = {
    "id": "var-1",
    "storage_path": _RAW,
    "metadata": {
        **_PICTURE,
        "digital_source_type": "trainedAlgorithmicMedia",
        "prompt": "Draw one finished thumbnail picture, …",
        "model": "gemini-nano-banana-2.1",
        "aspect_ratio": "16:9",
        "usage": {"promptTokenCount": 132, "candidatesTokenCount": 1120, "totalTokenCount": 1252},
        "cost_usd": 0.0336,
    },
    "exports": _EXPORTS,
    "warnings": [],
}
_ERROR = {
    "id": "var-2",
    "code": "blocked",
    "status": 422,
    "detail": "Gemini refused the request: SAFETY",
    "retryable": False,
    "billed": False,
    "storage_path": None,
}

THUMBNAILS = {"request_id": REQUEST_ID, "variations": [_VARIATION], "errors": [_ERROR]}
EXPORTS = {
    "request_id": REQUEST_ID,
    "metadata": {**_PICTURE, "digital_source_type": None, "frames": 1},
    "exports": _EXPORTS,
    "warnings": [
        {
            "code": "profile_ignored",
            "format": None,
            "detail": "the colour profile is not supported, and the levels were taken for sRGB",
        }
    ],
}
STATUS = {
    "request_id": REQUEST_ID,
    "state": "running",
    "mode": "async",
    "created_at": _AT,
    "finished_at": None,
    "script": "My awesome video",
    "count": 1,
    "idempotency_key": None,
    "batch_id": None,
    "variations": [],
    "errors": [],
    "calls": [
        {
            "id": "var-1",
            "attempt": 1,
            "state": "received",
            "model": "gemini-nano-banana-2.1",
            "image_size": "1K",
            "tier": "interactive",
            "sent_at": _AT,
            "finished_at": None,
            "billed": True,
            "cost_usd": 0.0336,
            "estimated": False,
            "storage_path": _RAW,
            "sha256": _SHA256,
        }
    ],
    "cost_usd": 0.0336,
    "possibly_billed_usd": 0.0,
}
EVENTS = f"""\
retry: 2000

id: 1
event: sent
data: {{"request_id":"{REQUEST_ID}","at":"{_AT}","id":"var-1","attempt":1}}

"""
USAGE = {
    "from": "2026-11-26",
    "to": "2026-11-26",
    "rows": [
        {
            "day": "2026-11-26",
            "model": "gemini-nano-banana-2.1",
            "image_size": "1K",
            "tier": "interactive",
            "outcome": "exported",
            "calls": 2,
            "cost_usd": 0.0672,
            "possibly_billed_usd": 0.0,
        }
    ],
    "total": {
        "calls": 2,
        "pictures": 2,
        "cost_usd": 0.0672,
        "possibly_billed_usd": 0.0,
        "unpriced_calls": 0,
        "estimated_calls": 0,
    },
    "key": "-",
    "budget": {
        "usd_per_day": 5.0,
        "day": "2026-11-26",
        "spent_usd": 0.0672,
        "reserved_usd": 0.0,
        "possibly_billed_usd": 0.0,
        "left_usd": 4.9328,
    },
}
READY = {
    "status": "ready",
    "checks": {
        "storage": "ok",
        "ledger": "ok",
        "descriptors": "ok",
        "workers": "ok",
        "scheduler": "ok",
        "admission": "ok",
        "emulator": None,
    },
    "emulator": False,
}
IMAGES_ORDER = {"prompt": "A lighthouse at dusk", "size": "1280x720", "output_format": "jpeg"}
_TOKENS = {
    "input_tokens": 132,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 132},
    "output_tokens": 1120,
    "output_tokens_details": {"image_tokens": 1120, "text_tokens": 0},
    "total_tokens": 1252,
}
_PICTURES = {
    "background": "opaque",
    "output_format": "jpeg",
    "quality": "medium",
    "size": "1280x720",
    "usage": _TOKENS,
}
IMAGES = {**_PICTURES, "created": 1795687200, "data": [{"b64_json": "/9j/4AAQSkZJRg=="}]}
IMAGE_EVENTS = """\
event: image_generation.completed
data: {"type":"image_generation.completed","b64_json":"/9j/4AAQSkZJRg==","…":"…"}

"""
MODEL = {"id": "gemini-nano-banana-2.1", "object": "model", "created": 1795305600, "owned_by": "google"}
MODELS = {"object": "list", "data": [MODEL]}
