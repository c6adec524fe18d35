"""Error codes: the error class of a code, and the error that is answered for several."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from service.errors import ImageError, ServiceError

E = TypeVar("E", bound=ServiceError)

# When no variation succeeded, the status of the response is the first of these that any of them has.
STATUS_ORDER = (507, 504, 502, 429, 503, 422, 409)


def overall_error(errors: Sequence[ServiceError]) -> ServiceError:
    """The error to respond with when no variation succeeded: by STATUS_ORDER, an unexpected fault last."""
    return min(errors, key=_rank)


def _rank(error: ServiceError) -> int:
    if error.status in STATUS_ORDER:
        return STATUS_ORDER.index(error.status)
    return len(STATUS_ORDER) + (error.code == ServiceError.code)


def classes(root: type[E]) -> Iterator[type[E]]:
    """`root` and its subclasses, one for each code."""
    return (kind for kind in _all_classes(root) if "code" in vars(kind))


def _all_classes(root: type[E]) -> Iterator[type[E]]:
    yield root
    for child in root.__subclasses__():
        yield from _all_classes(child)


def image_error(code: str, detail: str) -> ImageError:
    """The ImageError with the code of an ImagingError."""
    kind = next((kind for kind in classes(ImageError) if kind.code == code), ImageError)
    return kind(detail)


def stored_error(code: str, detail: str, *, retryable: bool, **more: Any) -> ServiceError:
    """An error that was stored by its code, detail and `retryable`; `more` as for ServiceError."""
    kinds = [kind for kind in _all_classes(ServiceError) if kind.code == code]
    # Of two classes with the same code, one is retryable.
    kind = next((kind for kind in kinds if kind.retryable == retryable), kinds[0] if kinds else ServiceError)
    return kind(detail, **more)
