"""The orientation in an Exif block; nothing else of it is read."""

import struct

_ORIENTATION = 0x0112
# The integer types of TIFF: BYTE, SHORT, LONG and their signed forms.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, in an Exif block; 1 if there is none or it cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        value = _orientation(tiff, order)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


def _orientation(tiff: bytes, order: str) -> int:
    """The first value of the tag, of any integer type, as in libvips and Pillow; 0 if there is none."""
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count, offset = struct.unpack_from(f"{order}HHII", tiff, entry)
        if tag == _ORIENTATION and kind in _INTEGERS and count:
            code = order + _INTEGERS[kind]
            # Values of at most four bytes are stored in the entry itself.
            at = entry + 8 if count * struct.calcsize(code) <= 4 else offset
            value: int = struct.unpack_from(code, tiff, at)[0]
            return value
    return 0
