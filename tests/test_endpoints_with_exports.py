"""From a script to downloadable pictures, end to end, and everything that can go wrong on the way."""

import asyncio
import errno
import hashlib
import io
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from PIL import Image

from service.bases import Base
from service.emulator.app import Emulator, Fault
from service.emulator.faults import BLOCK_REASONS, FAULTS, FINISH_REASONS
from service.emulator.responders import PendingRequest, edited, error, finished, one_picture, parts
from service.emulator.wrappings import WRAPPINGS
from service.errors import ServiceError, StorageFull, StorageUnavailable
from service.exports import Source
from service.gemini.costs import cost, usd
from service.gemini.reply import REFUSALS
from service.imaging.formats import Format
from service.imaging.plan import ExportOutcome, ExportWarning, Job, Outcome
from service.publishing import ExportSet
from service.server.keys import ADMISSION, EXPORTS
from service.settings import MIB
from service.store.local import LocalStore
from tests.animations import BLUE, RED, animation
from tests.conftest import Serve, settings_in
from tests.helpers import (
    SCRIPT,
    Answer,
    QuickEmulator,
    Running,
    assert_problem,
    decoded,
    fill_up,
    picture_bytes,
    png_header,
    running,
    small_disk,
    until,
    until_async,
    upload,
)

on_one_loop = pytest.mark.asyncio(loop_scope="session")

TINY = (("formats", "jpeg"), ("width", "16"))
PREFIX = r"[0-9a-f]{32}"


class Faulty:
    """A service that retries nothing, with control over the faults of its emulator."""

    def __init__(self, service: Running, emulator: QuickEmulator) -> None:
        self.service = service
        self.emulator = emulator

    async def ask(self, *faults: Fault, then: Fault = None, count: int | None = None) -> Answer:
        """The answer to a request whose calls meet these faults, one call for each."""
        self.emulator.play(*faults, then=then)
        return await self.service.thumbnails(*TINY, ("count", str(count or len(faults))))


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def _faulty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Faulty]:
    emulator = QuickEmulator()
    settings = settings_in(tmp_path_factory.mktemp("faulty"), gemini_retry_seconds=0)
    async with running(settings, emulator) as service:
        yield Faulty(service, emulator)


@pytest.fixture
def faulty(_faulty: Faulty, unblocked: object) -> Faulty:
    return _faulty


# The main use case


@on_one_loop
async def test_a_script_and_a_base_become_two_variations_and_six_downloads(serve: Serve) -> None:
    service = await serve(Emulator())
    base = picture_bytes((640, 360), "blue", "JPEG")
    answer = await service.thumbnails(upload(base, filename="base.jpg"), ("aspect_ratio", "16:9"), ("count", "2"))
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json
    assert body["errors"] == []
    assert [each["id"] for each in body["variations"]] == ["var-1", "var-2"]
    for variation in body["variations"]:
        for export in variation["exports"].values():
            got = await service.get(export["url"])
            assert got.status == 200
            assert got.headers["Content-Type"] == export["content_type"]
            picture = decoded(got.body)
            assert (picture.size, picture.mode, picture.format) == ((1280, 720), "RGB", export["format"])
            assert (len(got.body), hashlib.sha256(got.body).hexdigest()) == (export["size"], export["sha256"])
    [one, two] = service.emulator.received
    assert one.prompt == two.prompt
    assert one.references[0].mime_type == "image/jpeg"
    assert one.references[0].sha256 == hashlib.sha256(base).hexdigest()


@on_one_loop
async def test_the_shape_of_an_answer(service: Running) -> None:
    answer = await service.thumbnails(upload(picture_bytes()))
    body = answer.json
    assert list(body) == ["request_id", "variations", "errors"]
    assert re.fullmatch(f"req_{PREFIX}", body["request_id"])
    assert body["request_id"] == answer.headers["X-Request-Id"]
    [variation] = body["variations"]
    assert {*variation} == {"id", "storage_path", "metadata", "exports", "warnings"}
    assert variation["storage_path"] == f"generated/{body['request_id']}_1.png"
    raw = Path(service.settings.storage_dir, variation["storage_path"]).read_bytes()
    metadata = variation["metadata"]
    assert SCRIPT in metadata.pop("prompt")
    usage = metadata.pop("usage")
    assert usage["candidatesTokenCount"] == 1120
    assert metadata == {
        "model": "gemini-nano-banana-2.1",
        "aspect_ratio": "16:9",
        "width": 1376,
        "height": 768,
        "mime_type": "image/png",
        "sha256": hashlib.sha256(raw).hexdigest(),
        "cost_usd": usd(cost("gemini-nano-banana-2.1", usage) or 0),
        "normalized_to": [1280, 720],
        "composited": True,
        "c2pa": False,
        "digital_source_type": "compositeWithTrainedAlgorithmicMedia",
    }
    assert variation["warnings"] == []
    assert list(variation["exports"]) == ["png", "jpeg", "webp"]
    stems = set()
    for name, suffix, mime in (("png", "png", "png"), ("jpeg", "jpg", "jpeg"), ("webp", "webp", "webp")):
        export = variation["exports"][name]
        assert list(export) == [
            "format", "url", "file_path", "size", "exported_at", "width", "height", "content_type", "sha256",
            "quality", "colors", "frames",
        ]  # fmt: skip
        match = re.fullmatch(rf"output/(export_{PREFIX})\.{suffix}", export["file_path"])
        assert match
        stems.add(match[1])
        assert export["url"] == f"/static/{export['file_path']}"
        assert (export["format"], export["content_type"]) == (name.upper(), f"image/{mime}")
        assert (export["width"], export["height"]) == (1280, 720)
        at = datetime.fromisoformat(export["exported_at"])
        assert at.utcoffset() == timedelta(0)
        assert len(export["exported_at"]) == len("2024-01-15T10:30:45.123456+00:00")
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
    [stem] = stems
    assert body["request_id"][4:] not in stem


@on_one_loop
async def test_each_variation_has_a_stem_of_its_own(service: Running) -> None:
    body = (await service.thumbnails(("count", "4"), *TINY)).json
    paths = [each["exports"]["jpeg"]["file_path"] for each in body["variations"]]
    assert len({*paths}) == 4
    assert [each["storage_path"] for each in body["variations"]] == [
        f"generated/{body['request_id']}_{number}.png" for number in (1, 2, 3, 4)
    ]


@on_one_loop
async def test_exports_of_a_picture(service: Running) -> None:
    data = picture_bytes((2000, 1000), "green", "WEBP", lossless=True)
    with_base = upload(picture_bytes((50, 50)), "base")
    requests = service.emulator.requests
    answer = await service.exports(upload(data), with_base)
    assert answer.status == 200, answer.body
    body = answer.json
    assert list(body) == ["request_id", "metadata", "exports", "warnings"]
    assert body["metadata"] == {
        "width": 2000,
        "height": 1000,
        "mime_type": "image/webp",
        "sha256": hashlib.sha256(data).hexdigest(),
        "normalized_to": [1280, 640],
        "composited": True,
        "c2pa": False,
        "digital_source_type": None,
        "frames": 1,
    }
    assert {name: (each["width"], each["height"]) for name, each in body["exports"].items()} == dict.fromkeys(
        ("png", "jpeg", "webp"), (1280, 640)
    )
    assert service.emulator.requests == requests
    for export in body["exports"].values():
        assert decoded((await service.get(export["url"])).body).size == (1280, 640)


@on_one_loop
@pytest.mark.parametrize(
    ("size", "fields", "exported"),
    [
        ((100, 50), {}, (100, 50)),
        ((1280, 3), {}, (1280, 3)),
        ((1000, 2000), {}, (640, 1280)),
        ((2000, 3), {}, (1280, 2)),
        ((100, 50), {"width": "33"}, (33, 17)),
        ((100, 50), {"height": "3"}, (6, 3)),
        ((100, 50), {"width": "300", "height": "7"}, (300, 7)),
        ((3, 2), {"width": "8192"}, (8192, 5461)),
    ],
)
async def test_the_size_of_exports(
    service: Running, size: tuple[int, int], fields: dict[str, str], exported: tuple[int, int]
) -> None:
    answer = await service.exports(upload(picture_bytes(size)), *fields.items(), ("formats", "jpeg"))
    assert answer.json["metadata"]["normalized_to"] == [*exported]
    assert decoded((await service.get(answer.json["exports"]["jpeg"]["url"])).body).size == exported


@on_one_loop
async def test_a_size_that_this_picture_cannot_have_is_422(service: Running) -> None:
    with service.nothing_spent_or_left():
        answer = await service.exports(upload(picture_bytes((10, 1000))), ("width", "1000"))
    assert_problem(answer, 422, "impossible_size", "8192")


@on_one_loop
@pytest.mark.parametrize(
    ("blend", "level"), [(None, 200 * 7 + 100 * 3), ("0", 1000), ("1", 2000), ("0.25", 1250), ("0.0001", 1000)]
)
async def test_the_blend_is_the_pictures_share(service: Running, blend: str | None, level: int) -> None:
    picture, base = upload(picture_bytes(colour="#c8c8c8")), upload(picture_bytes(colour="#646464"), "base")
    fields = [] if blend is None else [("blend", blend)]
    answer = await service.exports(picture, base, *fields, ("formats", "png"))
    got = decoded((await service.get(answer.json["exports"]["png"]["url"])).body).convert("RGB")
    assert got.getpixel((5, 5)) == (round(level / 10),) * 3
    assert answer.json["metadata"]["composited"] is True


@on_one_loop
@pytest.mark.parametrize(
    ("fit", "corner"), [("cover", (255, 0, 0)), ("contain", (255, 255, 255)), ("stretch", (255, 0, 0))]
)
async def test_the_fit(service: Running, fit: str, corner: tuple[int, int, int]) -> None:
    picture = upload(picture_bytes((100, 50), "#ff0000"))
    answer = await service.exports(picture, ("fit", fit), ("width", "60"), ("height", "60"), ("formats", "png"))
    got = decoded((await service.get(answer.json["exports"]["png"]["url"])).body).convert("RGB")
    assert (got.size, got.getpixel((0, 0))) == ((60, 60), corner)


@on_one_loop
async def test_what_is_sent_is_what_was_asked(service: Running) -> None:
    answer = await service.thumbnails(
        ("aspect_ratio", "9:16"), ("image_size", "2K"), ("model", "gemini-3-pro-image"), ("formats", "jpeg")
    )
    sent = service.emulator.received[-1]
    assert (sent.model, sent.aspect_ratio, sent.image_size, sent.modalities) == (
        "gemini-3-pro-image", "9:16", "2K", ("IMAGE",),
    )  # fmt: skip
    assert sent.references == ()
    metadata = answer.json["variations"][0]["metadata"]
    assert (metadata["model"], metadata["aspect_ratio"]) == ("gemini-3-pro-image", "9:16")
    assert metadata["cost_usd"] == usd(cost("gemini-3-pro-image", metadata["usage"]) or 0)
    assert metadata["prompt"] == sent.prompt
    assert metadata["normalized_to"] == [1440, 2560]


@on_one_loop
async def test_a_width_and_a_height_leave_the_ratio_to_gemini(service: Running) -> None:
    answer = await service.thumbnails(("aspect_ratio", "9:16"), ("width", "100"), ("height", "100"), ("formats", "png"))
    assert service.emulator.received[-1].aspect_ratio == "9:16"
    assert answer.json["variations"][0]["metadata"]["normalized_to"] == [100, 100]


@on_one_loop
async def test_a_model_outside_the_table_has_no_price(service: Running) -> None:
    answer = await service.thumbnails(("model", "gemini-99-image"), *TINY)
    assert answer.status == 200, answer.body
    metadata = answer.json["variations"][0]["metadata"]
    assert (metadata["model"], metadata["cost_usd"]) == ("gemini-99-image", None)


@on_one_loop
async def test_the_table_refuses_before_the_call(service: Running) -> None:
    with service.nothing_spent_or_left():
        one = await service.thumbnails(("model", "gemini-3-pro-image"), ("aspect_ratio", "1:8"))
        two = await service.thumbnails(("model", "gemini-3.1-flash-lite-image"), ("image_size", "4K"))
    assert_problem(one, 422, "invalid_field", "aspect_ratio", "16:9")
    assert_problem(two, 422, "invalid_field", "image_size", "1K")


@on_one_loop
async def test_a_script_reaches_gemini_verbatim(service: Running) -> None:
    script = "  Zeile 1\r\nZeile 2\t<b>„Grüße“</b> 😀 {x} %s </script> \\n  "
    answer = await service.post("/api/thumbnails", ("script", script), *TINY)
    assert answer.status == 200, answer.body
    assert script in service.emulator.received[-1].prompt


# The base


@on_one_loop
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_the_base_is_sent_as_its_own_bytes_with_its_true_type(service: Running, kind: str) -> None:
    base = picture_bytes((64, 36), "blue", kind)
    answer = await service.thumbnails(upload(base, filename="lies.gif"), *TINY)
    [reference] = service.emulator.received[-1].references
    assert reference.mime_type == f"image/{kind.lower()}"
    assert reference.sha256 == hashlib.sha256(base).hexdigest()
    assert answer.json["variations"][0]["metadata"]["composited"] is True


@on_one_loop
async def test_a_gif_as_base_is_sent_as_a_jpeg_of_its_first_frame(service: Running) -> None:
    base = animation("GIF", [RED, BLUE])
    answer = await service.thumbnails(upload(base, filename="base.gif"), *TINY)
    [reference] = service.emulator.received[-1].references
    assert (reference.mime_type, reference.size) == ("image/jpeg", (64, 36))
    assert answer.json["variations"][0]["metadata"]["composited"] is True


@on_one_loop
async def test_with_reference_false_the_base_is_not_sent(service: Running) -> None:
    answer = await service.thumbnails(upload(picture_bytes()), ("reference", "false"), *TINY)
    assert service.emulator.received[-1].references == ()
    assert answer.json["variations"][0]["metadata"]["composited"] is True


@on_one_loop
async def test_a_base_over_7_mb_is_sent_as_a_jpeg(service: Running) -> None:
    base = await asyncio.to_thread(large_png)
    assert 7_000_000 < len(base) < 20 * MIB
    answer = await service.thumbnails(upload(base), *TINY)
    assert answer.status == 200, answer.body
    [reference] = service.emulator.received[-1].references
    assert (reference.mime_type, reference.size) == ("image/jpeg", (2000, 1500))
    assert not service.area("temp")


def large_png() -> bytes:
    """9 MB of noise."""
    noise, out = Image.effect_noise((2000, 1500), 90), io.BytesIO()
    Image.merge("RGB", (noise, noise, noise)).save(out, "PNG", compress_level=0)
    return out.getvalue()


@on_one_loop
async def test_blend_1_leaves_the_base_a_reference_only(service: Running) -> None:
    answer = await service.thumbnails(upload(picture_bytes()), ("blend", "1"), ("formats", "png"), ("width", "16"))
    assert service.emulator.received[-1].references
    [variation] = answer.json["variations"]
    raw = Path(service.settings.storage_dir, variation["storage_path"]).read_bytes()
    got = decoded((await service.get(variation["exports"]["png"]["url"])).body).convert("RGB")
    assert got.getpixel((8, 4)) == decoded(raw).getpixel((8, 4))


@on_one_loop
@pytest.mark.parametrize("data", [b"text", picture_bytes((99, 99))[:-30], png_header(50_000, 50_000)], ids=len)
async def test_a_bad_base_is_refused_before_any_call(service: Running, data: bytes) -> None:
    with service.nothing_spent_or_left():
        answer = await service.thumbnails(upload(data), ("count", "4"))
    assert answer.status in (415, 422)


# Links in answers


@on_one_loop
async def test_signed_links_in_answers_work(serve: Serve) -> None:
    service = await serve(sign_urls=True, signing_secret="s" * 32)
    for body in ((await service.thumbnails(*TINY)).json["variations"][0], (await service.exports(
        upload(picture_bytes()), *TINY)).json):  # fmt: skip
        url = body["exports"]["jpeg"]["url"]
        assert re.fullmatch(rf"/api/download/export_{PREFIX}\.jpg\?expires=[0-9]+&signature=[0-9a-f]{{64}}", url)
        assert (await service.get(url)).status == 200


@on_one_loop
@pytest.mark.parametrize("signed", [False, True])
async def test_public_url_is_the_prefix_of_every_link(serve: Serve, signed: bool) -> None:
    service = await serve(public_url="https://pics.example/thumbs/", sign_urls=signed, signing_secret="s" * 32)
    url = (await service.thumbnails(*TINY)).json["variations"][0]["exports"]["jpeg"]["url"]
    start = "https://pics.example/thumbs"
    assert url.startswith(f"{start}/api/download/export_" if signed else f"{start}/static/output/export_")
    assert (await service.get(url.removeprefix(start))).status == 200


@on_one_loop
async def test_the_file_path_is_the_key_wherever_output_is(serve: Serve, tmp_path: Path) -> None:
    service = await serve(output_dir=tmp_path / "elsewhere", temp_dir=tmp_path / "scratch")
    answer = await service.thumbnails(*TINY)
    export = answer.json["variations"][0]["exports"]["jpeg"]
    assert export["file_path"].startswith("output/export_")
    assert "elsewhere" not in answer.body.decode()
    assert (tmp_path / "elsewhere" / export["file_path"].removeprefix("output/")).is_file()
    assert (await service.get(export["url"])).status == 200


# Faults of Gemini

OK: tuple[Any, ...] = (200, None, None, None, None)
BAD_REPLY = (502, "bad_reply", None, False, None)
KEPT_REPLY = (502, "bad_reply", None, False, ".reply")
MOVED = (502, "gemini_rejected", None, False, None)
AUTH = (502, "gemini_auth", False, False, None)
REJECTED = (502, "gemini_rejected", False, False, None)
FAILED = (502, "gemini_failed", False, True, None)
QUOTA = (429, "quota_exhausted", False, True, None)
REFUSED = (422, "blocked", False, False, None)
UNKNOWN = (502, "outcome_unknown", None, False, None)

# fault -> status, code, billed, retryable, suffix of the raw that is kept
OUTCOMES: dict[str, tuple[Any, ...]] = {
    "bad_request": REJECTED,
    "bad_key": AUTH,
    "bad_location": REJECTED,
    "unauthenticated": AUTH,
    "permission_denied": AUTH,
    "not_found": REJECTED,
    **dict.fromkeys(
        ("rate_limited", "rate_limited_long", "rate_limited_header", "rate_limited_bare", "daily_quota", "zero_quota"),
        QUOTA,
    ),
    "internal": FAILED,
    "unavailable": (503, "gemini_unavailable", False, True, None),
    "deadline_exceeded": (504, "gemini_timeout", False, False, None),
    "no_content": BAD_REPLY,
    "server_error_html": FAILED,
    "server_error_not_json": FAILED,
    "empty_body": BAD_REPLY,
    **dict.fromkeys(
        ("malformed", "html", "empty_object", "list", "null", "number", "wrong_candidates",
         "wrong_candidate", "wrong_content", "no_candidates", "cut_at_eof"),
        KEPT_REPLY,
    ),
    "error_in_200": (502, "gemini_failed", None, False, None),
    "error_in_200_billed": (502, "gemini_failed", True, False, None),
    "bad_base64": (502, "bad_reply", True, False, ".reply"),
    "file_uri": (502, "bad_reply", True, False, ".reply"),
    **dict.fromkeys((name for name in FAULTS if name.startswith("redirect_")), MOVED),
    "not_modified": MOVED,
    "blocked_billed": (422, "blocked", True, False, None),
    **{f"blocked_{reason.lower()}": REFUSED for reason in (*BLOCK_REASONS, "UNKNOWN")},
    **{
        f"finish_{reason.lower()}": (422, "blocked" if reason in REFUSALS else "no_image", None, False, None)
        for reason in FINISH_REASONS
    },
    "text_only": (422, "no_image", True, False, None),
    **dict.fromkeys(
        ("finish_unknown", "no_usage", "text_beside", "draft_first", "drafts_only", "several", "jpeg", "webp",
         "jpeg_as_png", "webp_as_png", "gif", "rgba", "grey", "palette", "cmyk", "grey16", "huge_usage",
         "hidden_characters", *WRAPPINGS),
        OK,
    ),
    "not_a_picture": (502, "bad_reply", True, False, ".bin"),
    "truncated_picture": (502, "no_export", True, False, ".png"),
    "drop": UNKNOWN,
    "half_body": UNKNOWN,
    "hang": (504, "gemini_timeout", None, False, None),
}  # fmt: skip


def test_every_fault_has_its_outcome() -> None:
    assert {*OUTCOMES} == {*FAULTS}


@on_one_loop
@pytest.mark.parametrize("fault", [fault for fault in OUTCOMES if fault != "hang"])
async def test_a_fault_of_gemini_has_its_outcome(faulty: Faulty, fault: str) -> None:
    status, code, billed, retryable, suffix = OUTCOMES[fault]
    service, before = faulty.service, faulty.emulator.requests
    answer = await faulty.ask(fault)
    assert faulty.emulator.requests == before + 1
    if status == 200:
        assert answer.status == 200, answer.body
        assert decoded((await service.get(answer.json["variations"][0]["exports"]["jpeg"]["url"])).body).size == (16, 9)
        return
    body = assert_problem(answer, status, code)
    [error] = body["errors"]
    assert (body["billed"], body["retryable"]) == (billed, retryable)
    kept = suffix and f"generated/{body['request_id']}_1{suffix}"
    assert error == {
        "id": "var-1",
        "code": code,
        "status": status,
        "detail": body["detail"],
        "retryable": retryable,
        "billed": billed,
        "storage_path": kept,
    }
    if kept:
        assert Path(service.settings.storage_dir, kept).stat().st_size > 0
        assert kept.partition("/")[2] in service.area("generated")
    assert not service.area("temp")


@on_one_loop
@pytest.mark.parametrize(("fault", "mime", "suffix"), [
    ("jpeg", "image/jpeg", ".jpg"), ("jpeg_as_png", "image/jpeg", ".jpg"),
    ("webp", "image/webp", ".webp"), ("webp_as_png", "image/webp", ".webp"),
])  # fmt: skip
async def test_the_true_type_is_in_the_bytes(faulty: Faulty, fault: str, mime: str, suffix: str) -> None:
    [variation] = (await faulty.ask(fault)).json["variations"]
    assert variation["metadata"]["mime_type"] == mime
    assert variation["storage_path"].endswith(suffix)


@on_one_loop
async def test_a_raw_is_kept_as_it_was_received(faulty: Faulty) -> None:
    [error] = (await faulty.ask("not_a_picture")).json["errors"]
    assert (
        Path(faulty.service.settings.storage_dir, error["storage_path"]).read_bytes() == b"these bytes are no picture"
    )


@on_one_loop
async def test_a_refusal_says_why(faulty: Faulty) -> None:
    assert_problem(await faulty.ask("blocked_prohibited_content"), 422, "blocked", "PROHIBITED_CONTENT")
    assert_problem(await faulty.ask("finish_image_safety"), 422, "blocked", "IMAGE_SAFETY", "Stopped: IMAGE_SAFETY.")
    assert_problem(await faulty.ask("text_only"), 422, "no_image", "not draw it")


@on_one_loop
@pytest.mark.parametrize("answer", [
    error(400, "cut within a \ud83d"), finished("SAFETY", "cut within a \ud83d"),
    parts(lambda _: [{"text": "cut within a \ud83d"}]),
])  # fmt: skip
async def test_half_a_character_in_a_message_of_gemini_is_replaced(
    serve: Serve, answer: Callable[[PendingRequest], Awaitable[web.StreamResponse]]
) -> None:
    service = await serve(QuickEmulator(faults=[answer], then=None))
    body = (await service.thumbnails(("count", "2"), *TINY)).json
    assert len(body["variations"]) == 1
    assert body["errors"][0]["detail"].endswith("cut within a ?")


@on_one_loop
async def test_half_a_character_in_the_usage_is_replaced(serve: Serve) -> None:
    answer = edited(lambda body: body["usageMetadata"].update(note="cut within a \ud83d"))
    service = await serve(QuickEmulator(then=answer))
    [variation] = (await service.thumbnails(*TINY)).json["variations"]
    assert variation["metadata"]["usage"]["note"] == "cut within a ?"


@on_one_loop
async def test_one_of_four_blocked_is_200_with_three_and_one_error(faulty: Faulty) -> None:
    answer = await faulty.ask(None, "blocked_safety", None, None)
    assert answer.status == 200, answer.body
    body = answer.json
    [error] = body["errors"]
    assert (error["code"], error["status"], error["billed"], error["retryable"]) == ("blocked", 422, False, False)
    assert sorted([each["id"] for each in body["variations"]] + [error["id"]]) == ["var-1", "var-2", "var-3", "var-4"]
    assert [each["id"] for each in body["variations"]] == sorted(each["id"] for each in body["variations"])
    assert all(each["exports"]["jpeg"] for each in body["variations"])


@on_one_loop
async def test_all_blocked_is_422_and_names_each(faulty: Faulty) -> None:
    body = assert_problem(await faulty.ask(then="blocked_safety", count=4), 422, "blocked")
    assert [each["id"] for each in body["errors"]] == ["var-1", "var-2", "var-3", "var-4"]
    assert body["billed"] is False


@on_one_loop
@pytest.mark.parametrize(
    ("faults", "status"),
    [
        (["text_only", "unavailable"], 503),
        (["unavailable", "daily_quota", "blocked_safety"], 429),
        (["daily_quota", "internal", "unavailable"], 502),
        (["internal", "deadline_exceeded", "daily_quota", "blocked_safety"], 504),
    ],
)
async def test_of_several_errors_the_first_status_in_the_documented_order_counts(
    faulty: Faulty, faults: list[str], status: int
) -> None:
    answer = await faulty.ask(*faults)
    assert answer.status == status, answer.body
    assert len(answer.json["errors"]) == len(faults)


@on_one_loop
async def test_billed_is_true_as_soon_as_any_call_was(faulty: Faulty) -> None:
    assert (await faulty.ask("internal", "text_only")).json["billed"] is True
    assert (await faulty.ask("internal", "drop")).json["billed"] is None
    assert (await faulty.ask("internal", "blocked_safety")).json["billed"] is False


@on_one_loop
async def test_a_request_of_which_a_part_was_billed_is_not_called_retryable(faulty: Faulty) -> None:
    body = assert_problem(await faulty.ask("text_only", "rate_limited_long"), 429, "quota_exhausted")
    assert (body["billed"], body["retryable"]) == (True, False)
    # Either call may come first.
    assert sorted(error["retryable"] for error in body["errors"]) == [False, True]
    assert (await faulty.ask("blocked_safety", "rate_limited_long")).json["retryable"] is True


@on_one_loop
@pytest.mark.parametrize("fault", ["drop", "half_body", "cut_at_eof", "malformed", "empty_body"])
@pytest.mark.parametrize("count", [1, 4])
async def test_a_call_that_may_have_been_billed_is_never_sent_again(faulty: Faulty, fault: str, count: int) -> None:
    before = faulty.emulator.requests
    answer = await faulty.ask(then=fault, count=count)
    assert answer.status == 502
    assert faulty.emulator.requests == before + count
    assert [each["billed"] for each in answer.json["errors"]] == [None] * count


@on_one_loop
async def test_a_call_that_is_too_slow_is_504_and_not_sent_again(serve: Serve) -> None:
    service = await serve(QuickEmulator(then="hang"), gemini_timeout_seconds=0.5)
    body = assert_problem(await service.thumbnails(("count", "2")), 504, "gemini_timeout")
    assert [(each["status"], each["billed"]) for each in body["errors"]] == [(504, None)] * 2
    assert service.emulator.requests == 2


@on_one_loop
async def test_googles_refusals_of_our_key_are_not_passed_on(faulty: Faulty) -> None:
    for fault in ("unauthenticated", "permission_denied", "not_found", "bad_key"):
        assert (await faulty.ask(fault)).status == 502


# Quotas and retries


@on_one_loop
@pytest.mark.parametrize("fault", ["rate_limited", "rate_limited_header", "rate_limited_bare", "unavailable"])
async def test_a_call_that_was_not_executed_is_sent_again(serve: Serve, fault: str) -> None:
    emulator = QuickEmulator(faults=[fault])
    service = await serve(emulator, gemini_retry_seconds=10)
    assert (await service.thumbnails(*TINY)).status == 200
    assert emulator.requests == 2


@on_one_loop
@pytest.mark.parametrize("fault", ["rate_limited_long", "daily_quota", "zero_quota"])
async def test_a_quota_that_will_not_clear_is_429_at_once(serve: Serve, fault: str) -> None:
    emulator = QuickEmulator(then=fault)
    service = await serve(emulator, gemini_retry_seconds=30)
    answer = await service.thumbnails(("count", "2"))
    body = assert_problem(answer, 429, "quota_exhausted")
    assert (body["retryable"], body["billed"]) == (True, False)
    assert answer.headers["Retry-After"] == "3600"
    assert emulator.requests == 2


@on_one_loop
async def test_an_overload_that_lasts_is_503_within_the_budget(serve: Serve) -> None:
    emulator = QuickEmulator(then="unavailable")
    service = await serve(emulator, gemini_retry_seconds=2)
    body = assert_problem(await service.thumbnails(), 503, "gemini_unavailable")
    assert body["billed"] is False
    assert 2 <= emulator.requests <= 4


@on_one_loop
async def test_a_refused_connection_is_tried_again_then_503(serve: Serve) -> None:
    service = await serve(gemini_base_url="http://127.0.0.1:9", gemini_retry_seconds=1)
    body = assert_problem(await service.thumbnails(("count", "2")), 503, "gemini_unavailable", "cannot be reached")
    assert [each["billed"] for each in body["errors"]] == [False, False]


# Concurrency


@on_one_loop
async def test_four_variations_are_drawn_at_once_and_the_loop_answers_meanwhile(serve: Serve) -> None:
    emulator = QuickEmulator(delay_seconds=0.5)
    service = await serve(emulator)
    asked = asyncio.create_task(service.thumbnails(("count", "4"), *TINY))
    await until(lambda: emulator.in_flight == 4)
    assert (await service.get("/healthz")).status == 200
    assert emulator.in_flight == 4
    assert (await asked).status == 200
    assert emulator.peak == 4


@on_one_loop
async def test_gemini_concurrency_bounds_all_requests_together(serve: Serve) -> None:
    emulator = QuickEmulator(delay_seconds=0.05)
    service = await serve(emulator, gemini_concurrency=2)
    answers = await asyncio.gather(*(service.thumbnails(("count", "3"), *TINY) for _ in range(3)))
    assert [answer.status for answer in answers] == [200] * 3
    assert (emulator.requests, emulator.peak) == (9, 2)


# Clients that disconnect


async def hung_up(service: Running, emulator: QuickEmulator, count: int, in_flight: int) -> None:
    """Request `count` variations and disconnect as soon as `in_flight` calls were sent."""
    asked = asyncio.create_task(service.thumbnails(("count", str(count)), upload(picture_bytes()), *TINY))
    await until(lambda: emulator.in_flight == in_flight)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


@on_one_loop
async def test_the_pictures_of_sent_calls_are_exported_after_the_client_disconnects(serve: Serve) -> None:
    emulator = QuickEmulator(delay_seconds=0.3)
    service = await serve(emulator)
    await hung_up(service, emulator, count=2, in_flight=2)
    assert service.app[ADMISSION].inside["thumbnails"] == 1
    await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    assert len(service.area("generated")) == 2
    assert len(service.area("output")) == 2
    assert not service.area("temp")
    assert service.app[ADMISSION].reserved == 0


@on_one_loop
async def test_calls_that_are_not_out_yet_are_cancelled(serve: Serve) -> None:
    emulator = QuickEmulator(delay_seconds=0.3)
    service = await serve(emulator, gemini_concurrency=1)
    await hung_up(service, emulator, count=4, in_flight=1)
    await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    assert emulator.requests == 1
    assert len(service.area("output")) == 1


@on_one_loop
async def test_a_call_that_waits_to_be_sent_again_is_cancelled(serve: Serve) -> None:
    emulator = QuickEmulator(then="unavailable")
    service = await serve(emulator, gemini_retry_seconds=60)
    asked = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: emulator.requests == 1 and emulator.in_flight == 0)
    asked.cancel()
    await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    assert emulator.requests <= 2


# Storage that fails after the money is spent


@on_one_loop
async def test_no_space_for_the_exports_is_507_and_names_the_raw(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **descriptors: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.rename", full)
    output = service.area("output")
    answer = await service.exports(upload(picture_bytes()))
    assert_problem(answer, 507, "storage_full", "output/")
    assert service.area("output") == output
    assert not service.area("temp")


@on_one_loop
async def test_a_disk_that_fills_up_during_the_call_does_not_lose_the_paid_picture(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill_and_draw(call: PendingRequest) -> web.StreamResponse:
        await asyncio.to_thread(fill_up, tmp_path / "disk")
        return await one_picture(call)

    with small_disk(tmp_path / "disk", 80) as disk:
        service = await serve(QuickEmulator(then=fill_and_draw), storage_dir=disk / "storage")
        export = service.app[EXPORTS].export

        async def fill_and_export(*args: Any) -> ExportSet:
            await asyncio.to_thread(fill_up, disk)
            return await export(*args)

        monkeypatch.setattr(service.app[EXPORTS], "export", fill_and_export)
        [error] = assert_problem(await service.thumbnails(*TINY), 507, "no_export")["errors"]
        assert error["billed"] is True
        assert decoded((disk / "storage" / error["storage_path"]).read_bytes()).size == (1376, 768)
        assert (service.area("output"), service.area("temp")) == ([], [])


@on_one_loop
async def test_no_space_for_a_raw_is_507_before_any_call(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    calls = await service.counter("image_export_gemini_calls_total")
    with service.nothing_spent_or_left():
        body = assert_problem(await service.thumbnails(*TINY), 507, "storage_full", "generated/")
    assert body["billed"] is False
    assert await service.counter("image_export_gemini_calls_total") == calls


@on_one_loop
async def test_only_sent_calls_preallocate_space_for_their_raws(serve: Serve, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        emulator = QuickEmulator(faults=["unavailable"] * 2, delay_seconds=0.5)
        service = await serve(
            emulator, storage_dir=disk / "storage", ledger_dir=tmp_path / "ledger", gemini_concurrency=2
        )
        store, admission = service.app[EXPORTS].store, service.app[ADMISSION]
        free = await store.free_bytes()
        asked = asyncio.create_task(service.thumbnails(("count", "4"), ("image_size", "2K"), *TINY))

        async def calls_and_spaces(calls: int, expected: int) -> bool:
            spaces = [name for name in service.area("temp") if name.endswith(".part")]
            as_many = (emulator.requests, len(spaces)) == (calls, expected)
            return as_many and await store.free_bytes() == free

        # After the backoff one call is sent as a probe.
        for now in ((2, 2), (2, 0), (3, 1)):
            await until_async(partial(calls_and_spaces, *now))
        admission.check_space(512 * MIB - admission.reserved - MIB, await store.free_bytes())
        await asked
        assert not service.area("temp")


@on_one_loop
async def test_a_raw_that_cannot_be_written_says_that_it_was_billed(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*args: object) -> str:
        raise StorageFull("no space is left in generated/")

    monkeypatch.setattr(LocalStore, "write", full)
    body = assert_problem(await service.thumbnails(*TINY), 507, "storage_full", "generated/")
    assert body["billed"] is True
    assert body["errors"][0]["billed"] is True


@on_one_loop
@pytest.mark.parametrize("fault", [StorageFull("no space is left in output/"), StorageUnavailable("output/ is gone")])
async def test_a_picture_whose_exports_cannot_be_stored_names_its_raw(
    service: Running, monkeypatch: pytest.MonkeyPatch, fault: ServiceError
) -> None:
    async def fail(*args: object) -> None:
        raise fault

    monkeypatch.setattr(LocalStore, "publish", fail)
    body = assert_problem(await service.thumbnails(*TINY), fault.status, "no_export", "output/")
    [error] = body["errors"]
    assert error["storage_path"] == f"generated/{body['request_id']}_1.png"
    assert (error["billed"], error["status"]) == (True, fault.status)


@on_one_loop
async def test_an_area_of_another_name_is_named_by_its_area(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(generated_dir=tmp_path / "a-private-name")

    def full(*args: object, **descriptors: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr("os.rename", full)
    answer = await service.thumbnails(*TINY)
    assert_problem(answer, 507, "storage_full", "no space is left in generated/")
    assert b"private" not in answer.body


# Warnings


def without(monkeypatch: pytest.MonkeyPatch, service: Running, code: str, *formats: Format) -> None:
    """The workers report that they could not make these formats."""
    pool, run = service.app[EXPORTS].pool, service.app[EXPORTS].pool.run

    async def failing(job: Job, *args: Any) -> Outcome:
        outcome = await run(job, *args)
        if not isinstance(outcome, ExportOutcome):
            return outcome
        files = tuple(file for file in outcome.files if file.format not in formats)
        warnings = tuple(ExportWarning(code, "it failed", name) for name in formats)
        return replace(outcome, files=files, warnings=outcome.warnings + warnings)

    monkeypatch.setattr(pool, "run", failing)


@on_one_loop
async def test_a_format_that_fails_is_named_and_the_others_are_there(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await service.counter("image_export_warnings_total")
    without(monkeypatch, service, "encode_failed", "webp")
    exported = (await service.exports(upload(picture_bytes()))).json
    [variation] = (await service.thumbnails()).json["variations"]
    for body in (exported, variation):
        assert list(body["exports"]) == ["png", "jpeg"]
        assert body["warnings"] == [{"code": "encode_failed", "format": "webp", "detail": "it failed"}]
    assert await service.counter("image_export_warnings_total") == before + 2


@on_one_loop
async def test_a_picture_of_which_no_export_could_be_made_names_its_raw(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, service, "encode_failed", "png", "jpeg", "webp")
    body = assert_problem(await service.thumbnails(), 502, "no_export", "it failed")
    assert body["errors"][0]["storage_path"] == f"generated/{body['request_id']}_1.png"
    assert body["billed"] is True


@on_one_loop
async def test_only_an_avif_too_large_is_the_requests_fault(service: Running) -> None:
    large = (("formats", "avif"), ("width", "4097"), ("height", "4096"))
    detail = "the AVIF would have 16781312 pixels; at most 16777216 are allowed"
    assert_problem(await service.exports(upload(picture_bytes()), *large), 422, "no_export", detail)
    body = assert_problem(await service.thumbnails(*large), 422, "no_export", detail)
    assert body["errors"][0]["storage_path"] == f"generated/{body['request_id']}_1.png"


@on_one_loop
async def test_a_reason_that_is_not_the_requests_fault_decides_the_status(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, service, "over_budget", "png", "jpeg", "webp")
    assert_problem(await service.exports(upload(picture_bytes())), 422, "no_export", "it failed; it failed; it failed")
    without(monkeypatch, service, "encode_failed", "webp")
    assert_problem(await service.exports(upload(picture_bytes())), 502, "no_export")


@on_one_loop
async def test_exports_that_ran_out_of_space_leave_none(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, service, "storage_full", "webp")
    with service.nothing_spent_or_left():
        answer = await service.exports(upload(picture_bytes()))
    assert_problem(answer, 507, "storage_full")


@on_one_loop
async def test_a_base_that_vanished_is_named_and_the_picture_is_alone(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports, export = service.app[EXPORTS], service.app[EXPORTS].export

    async def vanishing(source: Source, base: Base, *args: Any) -> ExportSet:
        for path in (base.source.path, base.prepared.path if base.prepared else base.source.path):
            await asyncio.to_thread(Path(path).unlink, missing_ok=True)
        return await export(source, base, *args)

    monkeypatch.setattr(exports, "export", vanishing)
    [variation] = (await service.thumbnails(upload(picture_bytes()), *TINY)).json["variations"]
    assert variation["metadata"]["composited"] is False
    [warning] = variation["warnings"]
    assert (warning["code"], warning["format"]) == ("composite_failed", None)
    assert str(service.settings.storage_dir) not in warning["detail"]


# Workers


@on_one_loop
async def test_a_worker_killed_during_a_request_is_replaced_unnoticed(serve: Serve) -> None:
    emulator = QuickEmulator(delay_seconds=0.2)
    service = await serve(emulator)
    asked = asyncio.create_task(service.thumbnails(("count", "2"), *TINY))
    await until(lambda: emulator.in_flight == 2)
    for pid in service.app[EXPORTS].pool.pids:
        os.kill(pid, signal.SIGKILL)
    assert len((await asked).json["variations"]) == 2
    assert (await service.exports(upload(picture_bytes()), *TINY)).status == 200


@on_one_loop
async def test_an_export_past_its_deadline_is_no_export(serve: Serve) -> None:
    service = await serve(export_timeout_seconds=0.000001)
    body = assert_problem(await service.thumbnails(*TINY), 422, "no_export")
    assert body["errors"][0]["storage_path"]
    assert_problem(await service.exports(upload(picture_bytes()), *TINY), 422, "too_costly")


@on_one_loop
async def test_metrics_count_the_cost(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["blocked_safety"]))
    answer = await service.thumbnails(("count", "3"), *TINY)
    spent = sum(each["metadata"]["cost_usd"] for each in answer.json["variations"])
    assert await service.counter("image_export_gemini_calls_total") == 3
    assert await service.counter("image_export_gemini_cost_usd_total") == pytest.approx(spent)
    assert spent > 0
