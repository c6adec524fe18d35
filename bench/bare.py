"""The codec calls alone: the work of a worker without files, hashes, IPC and HTTP, as an upper bound."""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from bench.workload import SHARE, SIZE
from service.imaging.composite import composite
from service.imaging.encode import encode
from service.imaging.formats import Encoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.pipeline import finish
from service.imaging.plan import WHOLE_SHARE, ExportPlan, WorkerLimits
from service.imaging.probe import probe

ENCODINGS: tuple[Encoding, ...] = (PngEncoding(), JpegEncoding(), WebpEncoding())


@dataclass(frozen=True, slots=True)
class Made:
    cpu_seconds: float
    seconds: float
    size: int


def export(picture: bytes, base: bytes | None = None) -> Made:
    """Decode, resize, composite over the base if there is one, encode three times; the files are discarded."""
    start, cpu_start = time.perf_counter(), time.process_time()
    plan = ExportPlan(Frame(*SIZE), share=round(SHARE * WHOLE_SHARE))
    image, _ = finish(probe(picture, WorkerLimits().pixels), plan, SIZE)
    if base:
        under, _ = finish(probe(base, WorkerLimits().pixels), plan, SIZE)
        image = composite(image, under, plan.share)
    size = sum(len(encode(image, encoding, plan.matte)) for encoding in ENCODINGS)
    return Made(time.process_time() - cpu_start, time.perf_counter() - start, size)


def save(picture: bytes, kind: str, options: Mapping[str, object]) -> Made:
    """Pillow's `save` of a picture, whose decoding is not counted."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    file = io.BytesIO()
    start, cpu_start = time.perf_counter(), time.process_time()
    image.save(file, kind, **options)
    return Made(time.process_time() - cpu_start, time.perf_counter() - start, file.tell())
