"""cICP: the colour spaces that ITU-T H.273 has code points for, as equivalent ICC profiles."""

from typing import NamedTuple

from service.imaging.icc import LINEAR, Curve, build_profile, curve_tag, xyz_tag


class UnknownColours(Exception):
    """Code points other than of SDR in full-range RGB; the message names them, for people."""


class Coding(NamedTuple):
    """The four bytes of a PNG's cICP chunk."""

    primaries: int
    transfer: int
    matrix: int
    full_range: int


# Colorants by the code point of their primaries: X, Y, Z of red, green and blue, adapted to D50 (Bradford).
_COLORANTS = {
    1: ((0.436066, 0.222493, 0.013924), (0.385151, 0.716887, 0.097081), (0.143084, 0.060619, 0.714102)),  # BT.709
    9: ((0.673459, 0.279033, -0.001931), (0.165661, 0.675338, 0.029979), (0.125100, 0.045629, 0.797162)),  # BT.2020
    12: ((0.515121, 0.241196, -0.001054), (0.291977, 0.692245, 0.041886), (0.157104, 0.066574, 0.784073)),  # Display P3
}  # fmt: skip

# Transfer functions by code point. That of BT.709 is the inverse of its camera curve, as in browsers.
_BT709: Curve = (1 / 0.45, 1 / 1.099297, 0.099297 / 1.099297, 1 / 4.5, 0.081243)
_SRGB: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES = {1: _BT709, 4: (2.2,), 5: (2.8,), 6: _BT709, 8: LINEAR, 13: _SRGB, 14: _BT709, 15: _BT709}

_HDR = {16: "PQ", 18: "HLG"}
_PLAIN_SRGB = (1, 13)


def profile_of(coding: Coding, *, grey: bool) -> bytes | None:
    """The ICC profile for grey or RGB samples; None for sRGB itself. Raises UnknownColours."""
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
        return build_profile(b"GRAY", {b"kTRC": curve_tag(curve)})
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), (xyz_tag(*column) for column in colorants), strict=True))
    return build_profile(b"RGB ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve_tag(curve)))
