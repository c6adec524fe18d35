"""The picture formats: one row each."""

from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True)
class FormatRow:
    """`pillow` is Pillow's name and the one of the answers, `label` the one for people."""

    pillow: str
    label: str
    suffix: str
    mime: str


TABLE: dict[Format, FormatRow] = {
    "png": FormatRow("PNG", "PNG", ".png", "image/png"),
    "jpeg": FormatRow("JPEG", "JPEG", ".jpg", "image/jpeg"),
    "webp": FormatRow("WEBP", "WebP", ".webp", "image/webp"),
}

SNIFF_BYTES = 16


def sniff(head: bytes) -> Format | None:
    """The format that a file's first `SNIFF_BYTES` bytes prove, whatever its name or declared type says."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return None
