"""Flat pictures, such as interfaces and charts, compressed as a whole.

In strips, as `deflate` has them, each starts with Huffman tables that take more bytes than its pixels. As one stream, a
flat picture is smaller, and a thorough search for matches in it is quick.
"""

from collections.abc import Iterator

from PIL import Image
from zlib_ng import zlib_ng

SAMPLE_SIDE = 96  # pixels
CHUNK = 1 << 15  # bytes compressed between two looks at the size

# Bounds in bytes: pixels that are held in memory as a whole, and a stream worth its time.
LARGEST, LONGEST = 1 << 25, 1 << 17

# A picture is flat if a sample compresses to less than this share. Measured: up to here one stream is smaller than
# strips. Above the second share, a picture of several strips takes more time as one stream.
FLAT_SMALL, FLAT_LARGE = 0.5, 0.1


def is_flat(image: Image.Image, strip_bytes: int) -> bool:
    """Whether pixels from a grid over the image, at most SAMPLE_SIDE of them either way, compress well."""
    size = image.width * image.height * len(image.getbands())
    step = -(-max(image.size) // SAMPLE_SIDE)
    grid = max(1, image.width // step), max(1, image.height // step)
    sample = image.resize(grid, Image.Resampling.NEAREST).tobytes()
    share = len(zlib_ng.compress(sample, 1)) / len(sample)
    return size <= LARGEST and share < (FLAT_SMALL if size <= strip_bytes else FLAT_LARGE)


def flat_stream(image: Image.Image, rawmode: str, row_bytes: int, level: int) -> bytes | None:
    """The scanlines of a PNG as a zlib stream, with or without filters; None if it takes more than LONGEST bytes."""
    best, limit = None, LONGEST
    for rows in scanlines(image, rawmode, row_bytes):
        stream = compressed(rows, level, limit)
        if stream is None:
            break
        best, limit = stream, len(stream)
    return best


def scanlines(image: Image.Image, rawmode: str, row_bytes: int) -> Iterator[bytes]:
    """All rows with the filters that Pillow's PNG encoder chooses, then without."""
    yield zlib_ng.decompress(image.tobytes("zip", rawmode, 0, 0, -1, b""))  # of level 0: stored, not compressed
    packed = image.tobytes("raw", rawmode)
    yield b"".join(b"\0" + packed[start : start + row_bytes] for start in range(0, len(packed), row_bytes))


def compressed(rows: bytes, level: int, limit: int) -> bytes | None:
    """None as soon as the stream is longer than `limit`."""
    deflater, stream = zlib_ng.compressobj(level, zlib_ng.DEFLATED, 15, 9), b""
    for start in range(0, len(rows), CHUNK):
        stream += deflater.compress(rows[start : start + CHUNK])
        if len(stream) > limit:
            return None
    stream += deflater.flush()
    return stream if len(stream) <= limit else None
