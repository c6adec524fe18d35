"""cICP: colours named by the code points of ITU-T H.273, as the ICC profile that says the same."""

import struct
from typing import NamedTuple

_Curve = tuple[float, ...]


class UnknownColours(Exception):
    """Code points that no SDR picture in full-range RGB has; the message says which, for a person."""


class Coding(NamedTuple):
    """The four bytes of a PNG's cICP chunk."""

    primaries: int
    transfer: int
    matrix: int
    full_range: int


# Colorants by the code of their primaries, adapted to D50 by Bradford: the columns X, Y, Z of red, green and blue.
_COLORANTS = {
    1: ((0.436066, 0.222493, 0.013924), (0.385151, 0.716887, 0.097081), (0.143084, 0.060619, 0.714102)),  # BT.709
    9: ((0.673459, 0.279033, -0.001931), (0.165661, 0.675338, 0.029979), (0.125100, 0.045629, 0.797162)),  # BT.2020
    12: ((0.515121, 0.241196, -0.001054), (0.291977, 0.692245, 0.041886), (0.157104, 0.066574, 0.784073)),  # Display P3
}  # fmt: skip

# Parameters of an ICC parametric curve: gamma alone, or gamma, a, b, c, d: (ax + b) ** gamma from d on, cx below.
# BT.709's is the inverse of its camera curve, as browsers have it too.
_BT709: _Curve = (1 / 0.45, 1 / 1.099297, 0.099297 / 1.099297, 1 / 4.5, 0.081243)
_SRGB: _Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES = {1: _BT709, 4: (2.2,), 5: (2.8,), 6: _BT709, 8: (1.0,), 13: _SRGB, 14: _BT709, 15: _BT709}

_HDR = {16: "PQ", 18: "HLG"}
_PLAIN_SRGB = (1, 13)
_D50 = (0.9642, 1.0, 0.8249)


def profile_of(coding: Coding, *, grey: bool) -> bytes | None:
    """The ICC profile, for grey or RGB samples, None for sRGB itself; raises UnknownColours."""
    colorants, curve = _COLORANTS.get(coding.primaries), _CURVES.get(coding.transfer)
    if coding.transfer in _HDR:
        raise UnknownColours(f"colours in {_HDR[coding.transfer]} (HDR)")
    if coding.full_range != 1:
        raise UnknownColours("colours in narrow range")
    if colorants is None or curve is None or coding.matrix:
        raise UnknownColours(f"colours of the code points {'/'.join(map(str, coding))}")
    if coding[:2] == _PLAIN_SRGB:
        return None
    if grey:
        return _profile(b"GRAY", {b"kTRC": _parametric(curve)})
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), (_xyz(*column) for column in colorants), strict=True))
    return _profile(b"RGB ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _parametric(curve)))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 4 display profile with what LittleCMS needs of it."""
    tags = {b"wtpt": _xyz(*_D50)} | tags
    offset = 128 + 4 + 12 * len(tags)
    table = struct.pack(">I", len(tags))
    for name, body in tags.items():
        table += struct.pack(">4sII", name, offset, len(body))
        offset += len(body)
    header = struct.pack(">I4xI4s4s4s12x4s28x", offset, 0x04300000, b"mntr", space, b"XYZ ", b"acsp") + _xyz(*_D50)[8:]
    return b"".join((header.ljust(128, b"\0"), table, *tags.values()))


def _parametric(curve: _Curve) -> bytes:
    return struct.pack(f">4s4xH2x{len(curve)}i", b"para", 0 if len(curve) == 1 else 3, *map(_fixed, curve))


def _xyz(*values: float) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *map(_fixed, values))


def _fixed(value: float) -> int:
    """In 16.16 bits."""
    return round(value * 65536)
