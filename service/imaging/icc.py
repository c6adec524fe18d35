"""ICC profiles as bytes: the tags of one, and one made of tags (ICC.1:2022)."""

import struct
from collections.abc import Mapping

Tags = Mapping[bytes, bytes | memoryview]
Curve = tuple[float, ...]

LINEAR: Curve = (1.0,)

_D50 = (0.9642, 1.0, 0.8249)
_CREATED = (2000, 1, 1, 0, 0, 0)  # always the same time, so that equal tags give equal profiles
_HEADER_BYTES = 128
_MAX_TAGS = 100  # as LittleCMS has it


def build_profile(space: bytes, tags: Tags) -> bytes:
    """A minimal version 4 display profile with these tags, and a white point; `space` is `RGB ` or `GRAY`.

    Tags of equal values share one copy. The length of each value is a multiple of 4.
    """
    tags = {b"wtpt": xyz_tag(*_D50), **tags}
    offset, offsets = _HEADER_BYTES + 4 + 12 * len(tags), dict[bytes, int]()
    for body in map(bytes, tags.values()):
        if body not in offsets:
            offsets[body] = offset
            offset += len(body)
    entries = (struct.pack(">4sII", name, offsets[bytes(body)], len(body)) for name, body in tags.items())
    header = struct.pack(">I4xI4s4s4s", offset, 0x04300000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s28x", *_CREATED, b"acsp") + xyz_tag(*_D50)[8:]
    return b"".join((header.ljust(_HEADER_BYTES, b"\0"), struct.pack(">I", len(tags)), *entries, *offsets))


def text_tag(text: str) -> bytes:
    """A text in one language (multiLocalizedUnicodeType)."""
    body = text.encode("utf-16-be")
    return struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", len(body), 28) + body


def curve_tag(curve: Curve) -> bytes:
    """A parametric curve: gamma alone, or gamma, a, b, c, d: (ax + b) ** gamma from d on, cx below."""
    return struct.pack(f">4s4xH2x{len(curve)}i", b"para", 0 if len(curve) == 1 else 3, *map(_fixed, curve))


def xyz_tag(*values: float) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *map(_fixed, values))


def _fixed(value: float) -> int:
    """In 16.16 bits."""
    return round(value * 65536)


def read_tags(profile: bytes) -> Tags:
    """Name -> type and value of each tag, as far as the profile goes; raises struct.error if its table is cut."""
    view = memoryview(profile)
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * number) for number in range(min(count, _MAX_TAGS))]
    return {name: view[offset : offset + length] for name, offset, length in entries}


def read_xyz(tag: bytes | memoryview) -> tuple[float, float, float]:
    """The value of an XYZ tag; raises struct.error if it is cut."""
    x, y, z = struct.unpack_from(">8x3i", tag)
    return x / 65536, y / 65536, z / 65536
