"""ICC profiles made of primaries and a curve, and the CMYK profile of libvips."""

import struct
from functools import cache

import pyvips

XY = tuple[float, float]
Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]
Curve = float | str

D50 = (0.9642, 1.0, 0.8249)
D65: XY = (0.3127, 0.3290)
_BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))

SRGB_CURVE = "srgb"


def rgb_profile(red: XY, green: XY, blue: XY, white: XY, curve: Curve) -> bytes:
    """A display profile; `curve` is a gamma, or SRGB_CURVE."""
    return rgb_profile_of(red, green, blue, white, {name: _curve(curve) for name in (b"rTRC", b"gTRC", b"bTRC")})


def rgb_profile_of(red: XY, green: XY, blue: XY, white: XY, curves: dict[bytes, bytes]) -> bytes:
    """A display profile with these curve tags."""
    columns = _transposed(_to_d50(_primaries(red, green, blue, white), white))
    tags = {name: _xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    return _profile(b"mntr", b"RGB ", tags | curves)


def grey_profile(curve: Curve) -> bytes:
    return _profile(b"mntr", b"GRAY", {b"kTRC": _curve(curve)})


@cache
def cmyk_profile() -> bytes:
    image = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_export(output_profile="cmyk")
    return bytes(image.get("icc-profile-data"))


def _profile(kind: bytes, space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("made for a test"), b"cprt": _text("CC0"), b"wtpt": _xyz(*D50)} | tags
    offset = 128 + 4 + 12 * len(tags)
    table, bodies = [struct.pack(">I", len(tags))], []
    for name, body in tags.items():
        padded = body.ljust(-(-len(body) // 4) * 4, b"\0")
        table.append(struct.pack(">4sII", name, offset, len(body)))
        bodies.append(padded)
        offset += len(padded)
    header = struct.pack(">I4x4s4s4s4s", offset, b"\x04\x30\0\0", kind, space, b"XYZ ")
    header += struct.pack(">6H4s28x3i", 2000, 1, 1, 0, 0, 0, b"acsp", *map(_fixed, D50))
    return b"".join([header.ljust(128, b"\0"), *table, *bodies])


def _text(words: str) -> bytes:
    return struct.pack(">4s4xII2s2sII", b"mluc", 1, 12, b"en", b"US", 2 * len(words), 28) + words.encode("utf-16-be")


def _xyz(x: float, y: float, z: float) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", _fixed(x), _fixed(y), _fixed(z))


def _curve(curve: Curve) -> bytes:
    if isinstance(curve, str):
        parameters = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return struct.pack(">4s4xH2x5i", b"para", 3, *map(_fixed, parameters))
    return struct.pack(">4s4xH2xi", b"para", 0, _fixed(curve))


def _fixed(value: float) -> int:
    return round(value * 65536)


def _primaries(red: XY, green: XY, blue: XY, white: XY) -> Matrix:
    r, g, b = corners = _from_xy(red), _from_xy(green), _from_xy(blue)
    weights = _apply(_inverse(_transposed(corners)), _from_xy(white))
    return _transposed((_scaled(r, weights[0]), _scaled(g, weights[1]), _scaled(b, weights[2])))


def _to_d50(matrix: Matrix, white: XY) -> Matrix:
    have, want = _apply(_BRADFORD, _from_xy(white)), _apply(_BRADFORD, D50)
    cone = tuple(_scaled(row, want[i] / have[i]) for i, row in enumerate(_BRADFORD))
    return _product(_inverse(_BRADFORD), _product((cone[0], cone[1], cone[2]), matrix))


def _from_xy(corner: XY) -> Vector:
    x, y = corner
    return x / y, 1.0, (1 - x - y) / y


def _apply(matrix: Matrix, vector: Vector) -> Vector:
    a, b, c = (sum(cell * value for cell, value in zip(row, vector, strict=True)) for row in matrix)
    return a, b, c


def _product(left: Matrix, right: Matrix) -> Matrix:
    a, b, c = (_apply(left, column) for column in _transposed(right))
    return _transposed((a, b, c))


def _transposed(m: Matrix) -> Matrix:
    return (m[0][0], m[1][0], m[2][0]), (m[0][1], m[1][1], m[2][1]), (m[0][2], m[1][2], m[2][2])


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _scaled(vector: Vector, factor: float) -> Vector:
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


def _inverse(m: Matrix) -> Matrix:
    a, b, c = m
    volume = sum(x * y for x, y in zip(a, _cross(b, c), strict=True))
    columns = [_scaled(_cross(*pair), 1 / volume) for pair in ((b, c), (c, a), (a, b))]
    return _transposed((columns[0], columns[1], columns[2]))


DISPLAY_P3 = rgb_profile((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65, SRGB_CURVE)
ADOBE_RGB = rgb_profile((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), D65, 563 / 256)
PROPHOTO = rgb_profile((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585), 1.8)
SRGB = rgb_profile((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65, SRGB_CURVE)
LINEAR = rgb_profile((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65, 1.0)
