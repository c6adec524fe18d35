"""What can be wrong with a picture; every class survives pickling."""

from typing import ClassVar


class ImagingError(Exception):
    """A picture that cannot be used. `code` is machine-readable, `detail` one sentence for a person.

    ImagingError
    ├── UnsupportedType   not PNG, JPEG or WebP by its bytes
    ├── Undecodable       broken, cut, or of a kind that is not decoded
    │   ├── Fault         a step of ours failed; a note has the traceback
    │   └── Unreadable    the disk is at fault, not the picture
    ├── TooManyPixels     more than the limit, refused before decoding
    ├── TooCostly         outran a worker's time or memory
    └── ImpossibleFrame   the asked size cannot be had from this picture
    """

    code: ClassVar[str] = "undecodable"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UnsupportedType(ImagingError):
    code = "unsupported_image"


class Undecodable(ImagingError):
    code = "undecodable"


class Fault(Undecodable):
    pass


class Unreadable(Undecodable):
    pass


class TooManyPixels(ImagingError):
    code = "too_many_pixels"


class TooCostly(ImagingError):
    code = "too_costly"


class ImpossibleFrame(ImagingError):
    code = "impossible_size"
