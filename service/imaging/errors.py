"""The errors of imaging. Instances can be pickled, because workers return them to the parent process."""

from typing import ClassVar


class ImagingError(Exception):
    """A picture that cannot be used. `code` is for programs, `detail` is one sentence for people.

    ImagingError
    ├── UnsupportedType   not PNG, JPEG, WebP or GIF by its bytes
    ├── Undecodable       broken, cut, or of a kind that is not decoded
    │   ├── Fault         a step failed unexpectedly; a note has the traceback
    │   └── Unreadable    the file cannot be read from the disk
    ├── TooManyPixels     more than the limit, refused before decoding
    ├── TooCostly         exceeded a worker's time or memory
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
