"""ThumbnailService: the events of an order, their sequence, and the work that goes on after its client disconnects."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.bases import source_of
from service.errors import ImageError, InvalidField, NotFound, ServiceError
from service.exports import ImageExportService
from service.gemini.client import GeminiService
from service.gemini.reply import Reply
from service.gemini.transport import Exchange
from service.imaging.formats import JpegEncoding
from service.imaging.frame import Frame
from service.imaging.plan import ExportPlan
from service.orders import Event, Failed, Order, Received, Sent, Variation
from service.server.keys import EXPORTS, GEMINI, THUMBNAILS
from service.store.sweeping import DAY_SECONDS, sweep
from service.thumbnails import ThumbnailService
from tests.conftest import Serve
from tests.helpers import SCRIPT, QuickEmulator, Running, decoded, picture_bytes, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL = ExportPlan(Frame(16, 9))
ONE = (JpegEncoding(),)


def order(count: int = 1, **more: Any) -> Order:
    return Order(SCRIPT, count=count, **{"plan": SMALL, "encodings": ONE, **more})


@pytest_asyncio.fixture(loop_scope="session")
async def thumbnails(service: Running) -> AsyncIterator[ThumbnailService]:
    yield service.app[THUMBNAILS]


async def events_of(thumbnails: ThumbnailService, wanted: Order) -> list[Event]:
    return [event async for event in thumbnails.generate(wanted)]


async def test_a_variation_is_sent_received_and_exported(service: Running, thumbnails: ThumbnailService) -> None:
    wanted = order()
    sent, received, variation = await events_of(thumbnails, wanted)
    assert sent == Sent("var-1")
    assert isinstance(received, Received)
    assert received.storage_path == f"generated/{wanted.request_id}_1.png"
    raw = Path(service.settings.storage_dir, received.storage_path).read_bytes()
    assert received.size == len(raw)
    assert isinstance(variation, Variation)
    assert variation.metadata.normalized_to == (16, 9)
    [export] = variation.exported.exports.values()
    assert decoded(Path(service.settings.storage_dir, export.file_path).read_bytes()).size == (16, 9)


async def test_every_variation_has_its_own_events_in_order(thumbnails: ThumbnailService) -> None:
    events = await events_of(thumbnails, order(3))
    for name in ("var-1", "var-2", "var-3"):
        assert [type(event) for event in events if event.id == name] == [Sent, Received, Variation]


async def test_the_raw_is_on_the_disk_before_its_event(service: Running, thumbnails: ThumbnailService) -> None:
    async with aclosing(thumbnails.generate(order())) as events:
        async for event in events:
            if isinstance(event, Received):
                assert Path(service.settings.storage_dir, event.storage_path).stat().st_size == event.size
                break


async def test_a_script_alone_has_everything_at_its_default(service: Running, thumbnails: ThumbnailService) -> None:
    events = [event async for event in thumbnails.generate_thumbnails(SCRIPT, None, "1:1", 2)]
    done = [event for event in events if isinstance(event, Variation)]
    assert sorted(event.id for event in done) == ["var-1", "var-2"]
    for variation in done:
        assert list(variation.exported.exports) == ["png", "jpeg", "webp"]
        assert variation.metadata.normalized_to == (1024, 1024)
    assert service.emulator.received[-1].aspect_ratio == "1:1"


async def test_a_base_by_its_path_is_sent_and_blended(
    thumbnails: ThumbnailService, service: Running, tmp_path: Path
) -> None:
    base = tmp_path / "base.jpg"
    base.write_bytes(picture_bytes(kind="JPEG"))
    *_, variation = await events_of(thumbnails, order(base=source_of(str(base))))
    assert isinstance(variation, Variation)
    assert variation.exported.composited
    assert service.emulator.received[-1].references[0].mime_type == "image/jpeg"
    assert base.exists()


async def test_a_missing_reference_is_not_found_before_any_call(
    thumbnails: ThumbnailService, service: Running, tmp_path: Path
) -> None:
    with service.nothing_spent_or_left(), pytest.raises(NotFound):
        async for _ in thumbnails.generate_thumbnails(SCRIPT, str(tmp_path / "nothing.png")):
            pass


async def test_a_reference_that_is_no_picture_is_refused_before_any_call(
    thumbnails: ThumbnailService, service: Running, tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_bytes(b"text")
    with service.nothing_spent_or_left(), pytest.raises(ImageError):
        await events_of(thumbnails, order(base=source_of(str(text))))


async def test_what_the_model_lacks_is_refused_before_any_call(thumbnails: ThumbnailService, service: Running) -> None:
    with service.nothing_spent_or_left(), pytest.raises(InvalidField):
        await events_of(thumbnails, order(model="gemini-3.1-flash-lite-image", image_size="4K"))


async def test_failures_are_events_too(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["blocked_safety"], then="not_a_picture"))
    events = await events_of(service.app[THUMBNAILS], order(2))
    failed = {event.error.code: event for event in events if isinstance(event, Failed)}
    assert {*failed} == {"blocked", "bad_reply"}
    assert failed["bad_reply"].error.storage_path
    assert [type(event) for event in events if event.id == failed["bad_reply"].id] == [Sent, Received, Failed]


async def test_a_reply_over_the_limit_of_the_settings_is_a_failure(serve: Serve) -> None:
    service = await serve(gemini_max_reply_bytes=1000)
    [_, failed] = await events_of(service.app[THUMBNAILS], order())
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.error.billed) == ("bad_reply", None)


async def test_an_unexpected_fault_of_one_leaves_the_others(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails, generate, calls = service.app[THUMBNAILS], GeminiService.generate_image, iter((True, False))

    async def sometimes(self: GeminiService, *args: Any) -> object:
        if next(calls):
            raise ZeroDivisionError
        return await generate(self, *args)

    monkeypatch.setattr(GeminiService, "generate_image", sometimes)
    events = await events_of(thumbnails, order(2))
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert type(failed.error) is ServiceError
    assert failed.error.billed is None
    assert any(isinstance(event, Variation) for event in events)


async def test_an_unexpected_fault_of_the_workers_still_names_the_kept_picture(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(service.app[EXPORTS].pool, "run", broken)
    _, received, failed = await events_of(service.app[THUMBNAILS], order())
    assert isinstance(received, Received)
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.error.status) == ("no_export", 502)
    assert failed.error.storage_path == received.storage_path
    assert failed.error.billed is True


async def test_pictures_that_wait_for_a_worker_are_not_kept_in_memory(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, go = asyncio.Queue[None](), asyncio.Event()
    export = service.app[EXPORTS].export

    async def wait(*args: Any) -> object:
        waiting.put_nowait(None)
        await go.wait()
        return await export(*args)

    monkeypatch.setattr(service.app[EXPORTS], "export", wait)
    reading = asyncio.create_task(events_of(service.app[THUMBNAILS], order(3)))
    for _ in range(3):
        await waiting.get()
    objects = gc.get_objects()
    in_memory = [each for each in objects if isinstance(each, Reply) or (isinstance(each, Exchange) and each.body.size)]
    del objects
    go.set()
    await reading
    assert in_memory == []


async def test_a_call_is_counted_once_whatever_its_outcome(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["truncated_picture", "not_a_picture", "blocked_safety"]))
    events = await events_of(service.app[THUMBNAILS], order(4))
    assert len([event for event in events if isinstance(event, Failed)]) == 3
    assert await service.counter("image_export_gemini_calls_total") == 4
    for outcome, calls in (("ok", 2), ("bad_reply", 1), ("blocked", 1)):
        assert await service.counter(f'image_export_gemini_calls_total{{outcome="{outcome}"}}') == calls


async def test_done_is_called_once_at_the_end(thumbnails: ThumbnailService) -> None:
    done: list[bool] = []
    async with aclosing(thumbnails.generate(order(2), lambda: done.append(True))) as events:
        async for _ in events:
            pass
    assert done == [True]


async def test_closing_the_iterator_stops_only_the_calls_that_were_not_sent(serve: Serve) -> None:
    emulator = QuickEmulator(delay_seconds=0.2)
    service = await serve(emulator, gemini_concurrency=2)
    done = asyncio.Event()
    async with aclosing(service.app[THUMBNAILS].generate(order(4), done.set)) as events:
        # Either of the first two calls may be sent first.
        sent = [await anext(events) for _ in range(2)]
        assert {(type(event), event.id) for event in sent} == {(Sent, "var-1"), (Sent, "var-2")}
    assert not done.is_set()
    await asyncio.wait_for(done.wait(), 20)
    assert emulator.requests == 2
    assert len(service.area("generated")) == len(service.area("output")) == 2


async def test_an_iterator_that_is_cancelled_at_once_sends_and_leaves_nothing(service: Running) -> None:
    done = asyncio.Event()
    with service.nothing_spent_or_left():
        generator = service.app[THUMBNAILS].generate(order(4), done.set)
        first = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await asyncio.wait_for(done.wait(), 20)


async def test_close_cancels_all_work(serve: Serve) -> None:
    emulator = QuickEmulator(delay_seconds=60)
    service = await serve(emulator)
    thumbnails = service.app[THUMBNAILS]
    reading = asyncio.create_task(events_of(thumbnails, order(2)))
    await until(lambda: emulator.in_flight == 2)
    await thumbnails.close()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not service.area("temp")


async def test_the_emulator_is_named_as_the_model_and_free(service: Running) -> None:
    emulated = service.settings.model_copy(update={"gemini_emulator": True})
    async with await asyncio.to_thread(ImageExportService, emulated) as exports:
        thumbnails = ThumbnailService(service.app[GEMINI], exports)
        *_, variation = await events_of(thumbnails, order())
    assert isinstance(variation, Variation)
    assert (variation.metadata.model, variation.metadata.cost_usd) == ("emulator", 0.0)


async def test_a_raw_in_use_is_held_against_the_sweep(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    exports, swept = service.app[EXPORTS], []
    export = exports.export

    async def sweeping(*args: Any) -> object:
        areas = [service.settings.area(area) for area in ("generated", "uploads")]
        tomorrow = time.time() + DAY_SECONDS
        swept.extend([await asyncio.to_thread(sweep, area, 0.5, now=tomorrow) for area in areas])
        return await export(*args)

    monkeypatch.setattr(exports, "export", sweeping)
    *_, variation = await events_of(service.app[THUMBNAILS], order())
    assert isinstance(variation, Variation)
    assert swept[0].in_use == 1
    assert Path(service.settings.storage_dir, variation.storage_path).exists()
