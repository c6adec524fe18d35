"""ImageExportService in several loops, after a fork and in a daemonic process: it works, or raises at once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, io, multiprocessing, os, sys, threading
from PIL import Image
from service.exports import ImageExportService

picture = io.BytesIO()
Image.new("RGB", (64, 48), "red").save(picture, "PNG")

def use(service):
    async def several():
        return await asyncio.gather(*(service.process_and_export_image(picture.getvalue()) for _ in range(3)))
    try:
        print(sum(map(len, asyncio.run(several()))), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)

def forked(service):
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        use(service)
        os._exit(0)

def daemonic(service):
    process = multiprocessing.get_context("fork").Process(target=use, args=(service,), daemon=True)
    process.start()
    process.join()

def beside_another(service):
    async def work():
        await service.process_and_export_image(picture.getvalue())
        await asyncio.to_thread(use, service)
        return len(await service.process_and_export_image(picture.getvalue()))
    print(asyncio.run(work()), flush=True)

def closed_beside_another(service):
    def close():
        try:
            asyncio.run(service.pool.close())
        except RuntimeError as error:
            print(f"RuntimeError: {error}", flush=True)
    async def work():
        await service.process_and_export_image(picture.getvalue())
        await asyncio.to_thread(close)
        return len(await service.process_and_export_image(picture.getvalue()))
    print(asyncio.run(work()), flush=True)

def closed_by_child(service):
    async def work():
        async with service:
            if child := os.fork():
                os.waitpid(child, 0)
                return len(await service.process_and_export_image(picture.getvalue()))
        os._exit(0)
    print(asyncio.run(work()), flush=True)

service = ImageExportService()
"""
FORKED = (
    "RuntimeError: ImageExportService was used before this process was forked:"
    " use it in the parent, or start this process with multiprocessing's spawn"
)
BESIDE = "RuntimeError: this ImageExportService is in use in another event loop: make one for each loop"
DAEMONIC = "RuntimeError: a daemonic process may have no workers: use ImageExportService in one that is not"


@pytest.mark.parametrize(
    ("steps", "printed"),
    [
        ("use(service); use(service); use(service)", ["9", "9", "9"]),
        ("forked(service); use(service)", ["9", "9"]),
        ("use(service); forked(service); use(service)", ["9", FORKED, "9"]),
        ("use(service); forked(ImageExportService()); use(service)", ["9", FORKED, "9"]),
        ("daemonic(service); use(service)", [DAEMONIC, "9"]),
        ("closed_by_child(service)", ["3"]),
        ("closed_beside_another(service); use(service)", [BESIDE, "3", "9"]),
        ("beside_another(service); use(service)", [BESIDE, "3", "9"]),
    ],
)
def test_the_service_works_or_raises_at_once(tmp_path: Path, steps: str, printed: list[str]) -> None:
    environment = {"STORAGE_DIR": str(tmp_path), "EXPORT_WORKERS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM + steps]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert answer.stdout.splitlines() == printed, answer.stderr
    assert "Traceback" not in answer.stderr
