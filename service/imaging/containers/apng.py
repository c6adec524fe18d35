"""Animated PNG: its frames, each of which becomes a PNG of its own."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from service.imaging.containers.animation import Animation, Cel, Disposal
from service.imaging.frame import Size
from service.imaging.timing import Timing, quantized

if TYPE_CHECKING:
    from service.imaging.containers.container import Container

# Makes a picture of a cel from its size and its compressed pixels.
Still = Callable[[Size, Sequence[memoryview]], "Container"]

_CONTROL = struct.Struct(">IIIIIHHBB")
_DISPOSALS: dict[int, Disposal] = {1: "background", 2: "previous"}


@dataclass(slots=True)
class Frames:
    """The frames of an APNG, chunk by chunk.

    controls       the fcTL chunk of each
    pixels         its compressed pixels; a frame without pixels is none
    default_first  the default image is the first frame
    fault          why the animation cannot be composed, if it cannot
    """

    controls: list[memoryview] = field(default_factory=list)
    pixels: list[list[memoryview]] = field(default_factory=list)
    default_first: bool = False
    fault: str | None = None
    _default_seen: bool = False
    _next: memoryview | None = None
    _sequence: int = 0

    def add_control(self, body: memoryview) -> None:
        """The body of an fcTL chunk, which begins a frame."""
        self._check(body)
        if not _is_valid(body):
            self._fail("a frame of the animated PNG has a broken header")
            return
        self._expect_pixels()
        self._next = body

    def add_default(self, body: memoryview) -> None:
        """The body of an IDAT chunk."""
        if not self._default_seen:
            self._default_seen, self.default_first = True, self._next is not None
            self._begin()
        if self.default_first:
            self.pixels[0].append(body)

    def add_pixels(self, body: memoryview) -> None:
        """The body of an fdAT chunk."""
        self._check(body)
        self._begin()
        if self._default_seen and len(self.pixels) > self.default_first:
            self.pixels[-1].append(body[4:])
        else:
            self._fail("the animated PNG has pixels that belong to no frame")

    def _expect_pixels(self) -> None:
        if self._next is not None:
            self._fail("a frame of the animated PNG has no pixels")

    def _fail(self, fault: str) -> None:
        self.fault = self.fault or fault

    def _check(self, body: memoryview) -> None:
        """Frames and pixels are numbered in one sequence."""
        if int.from_bytes(body[:4]) != self._sequence:
            self._fail("the parts of the animated PNG are out of order")
        self._sequence += 1

    def _begin(self) -> None:
        """A frame begins with the first pixels after its fcTL chunk."""
        if self._next is not None:
            self.controls.append(self._next)
            self.pixels.append([])
            self._next = None

    def animation(self, canvas: Size, plays: int, still: Still) -> Animation | None:
        """None if there is nothing but the default image."""
        self._expect_pixels()
        if not self.controls or (len(self.controls) == 1 and self.default_first and not self.fault):
            return None
        fields = [_CONTROL.unpack(control) for control in self.controls]
        cels = [_cel(each, pixels, still) for each, pixels in zip(fields, self.pixels, strict=True)]
        if not all(cel.within(canvas) for cel in cels):
            self._fail("a frame of the animated PNG leaves its canvas")
        return Animation(canvas, cels, Timing(quantized(map(_duration, fields)), plays), self.fault)


def _is_valid(body: memoryview) -> bool:
    """Whether the body of an fcTL chunk has a size, and a disposal and a blending that exist."""
    if len(body) != _CONTROL.size:
        return False
    _, width, height, *_, disposal, blend = _CONTROL.unpack(body)
    return width > 0 and height > 0 and disposal in (0, *_DISPOSALS) and blend in (0, 1)


def _cel(fields: tuple[int, ...], pixels: list[memoryview], still: Still) -> Cel:
    _, width, height, left, top, _, _, disposal, blend = fields
    make = partial(still, (width, height), pixels)
    return Cel(make, left, top, width, height, _DISPOSALS.get(disposal, "keep"), blends=blend == 1)


def _duration(fields: tuple[int, ...]) -> Fraction:
    """In milliseconds."""
    return Fraction(1000 * fields[5], fields[6] or 100)
