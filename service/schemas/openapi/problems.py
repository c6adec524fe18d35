"""The errors of each operation."""

from service import errors
from service.errors import ServiceError
from service.schemas.openapi.operation import Endpoint, Errors, Operation

_ALWAYS: Errors = (errors.MalformedRequest, errors.ExpectationFailed, ServiceError)
_GUARDED: Errors = (errors.Unauthorized, errors.CrossOrigin, errors.RateLimited)
_PAGE: Errors = (errors.CrossOrigin,)
_ADMISSION: Errors = (errors.Busy, errors.Draining)

QUERY: Errors = (errors.UnknownField, errors.DuplicateField)
LEDGER: Errors = (errors.StorageUnavailable, errors.StorageFull)
BODY: Errors = (
    errors.MalformedBody, errors.DuplicateField, errors.NotUtf8, errors.BodyTimeout, errors.TooLarge,
    errors.UnsupportedMediaType, errors.UnsupportedEncoding, errors.UnknownField, errors.InvalidField,
    errors.StorageUnavailable, errors.StorageFull,
)  # fmt: skip
PICTURES: Errors = (
    errors.UnsupportedImage, errors.ImageError, errors.TooManyPixels, errors.TooCostly, errors.ImpossibleSize,
)  # fmt: skip
EXPORTS: Errors = (errors.NoExport, errors.StorageFull, errors.StorageUnavailable)
FILE: Errors = (errors.PreconditionFailed, errors.RangeNotSatisfiable, errors.StorageUnavailable)
VARIATIONS: Errors = (
    errors.Cancelled, errors.Blocked, errors.NoImage, errors.QuotaExhausted, errors.GeminiAuth, errors.GeminiRejected,
    errors.GeminiFailed, errors.BadReply, errors.OutcomeUnknown, errors.RawMissing, errors.NoExport,
    errors.GeminiUnavailable, errors.StorageUnavailable, errors.GeminiTimeout, errors.StorageFull, ServiceError,
)  # fmt: skip


def errors_of(endpoint: Endpoint, operation: Operation) -> Errors:
    """The errors of an operation, but those of its variations."""
    found = (*_ALWAYS, *operation.errors)
    if endpoint.access != "open":
        found += _GUARDED if endpoint.access == "guarded" else _PAGE
    if endpoint.admission:
        found += _ADMISSION
    if endpoint.admission in ("thumbnails", "exports"):
        found += LEDGER
    if "{" in endpoint.path:
        found += (errors.NotFound,)
    return found
