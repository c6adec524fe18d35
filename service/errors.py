"""The exception hierarchy: one class for each error code, with its HTTP status."""

from collections.abc import Mapping
from typing import Any, ClassVar

from service.quoting import visible, without_surrogates


class SettingsError(Exception):
    """A setting with which the service does not start; the message is one line for the operator."""


class ServiceError(Exception):
    """An error that is reported to the client.

    `detail` is one sentence, and never contains a path of the machine. `billed` says whether a call to Gemini was paid
    for (None: unknown), `storage_path` is the key under which its reply is stored, `usage` its usageMetadata. `param`
    is the name of the field that is at fault.

    ServiceError (internal, 500)
    ├── RequestError                      the client's mistake, nothing was spent
    │   ├── 400 MalformedRequest MalformedBody DuplicateField NotUtf8 InvalidIdempotencyKey
    │   ├── 401 Unauthorized   403 BadSignature CrossOrigin   404 NotFound   405 MethodNotAllowed   408 BodyTimeout
    │   ├── 409 NoRaw StillRunning   410 LinkExpired RawGone Deleted   412 PreconditionFailed   413 TooLarge
    │   ├── 415 UnsupportedMediaType UnsupportedEncoding UnsupportedImage
    │   ├── 416 RangeNotSatisfiable   417 ExpectationFailed
    │   ├── 422 MissingField UnknownField InvalidField ImageError IdempotencyMismatch UnpricedModel
    │   └── 429 BudgetExhausted RateLimited
    ├── GeminiError                       a call failed; `billed` says what is known of its price
    │   ├── 422 Blocked NoImage   429 QuotaExhausted CreditsExhausted
    │   ├── 502 GeminiAuth GeminiRejected GeminiFailed BadReply OutcomeUnknown
    │   └── 503 GeminiUnavailable   504 GeminiTimeout
    ├── 502 NoExport RawMissing           a picture came, but no export could be made of it
    ├── 409 Cancelled                     a call that never went out
    └── 503 Busy Draining StorageUnavailable NotReady   507 StorageFull
    """

    code: ClassVar[str] = "internal"
    status: int = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        billed: bool | None = False,
        storage_path: str | None = None,
        usage: Mapping[str, Any] | None = None,
        param: str | None = None,
    ) -> None:
        self.detail = visible(without_surrogates(detail))
        super().__init__(self.detail)
        if status is not None:
            self.status = status
        self.headers = dict(headers or {})
        self.billed = billed
        self.storage_path = storage_path
        self.usage = usage
        self.param = None if param is None else without_surrogates(param)

    @property
    def worth_retrying(self) -> bool:
        """Whether the same request may succeed later; never if it may have been billed already."""
        return self.retryable and self.billed is False


class RequestError(ServiceError):
    pass


class MalformedRequest(RequestError):
    code, status, title = "malformed_request", 400, "The request is malformed"


class MalformedBody(RequestError):
    code, status, title = "malformed_body", 400, "The body is malformed"


class DuplicateField(RequestError):
    code, status, title = "duplicate_field", 400, "A field came twice"


class NotUtf8(RequestError):
    code, status, title = "not_utf8", 400, "A text field is not UTF-8"


class InvalidIdempotencyKey(RequestError):
    code, status, title = "invalid_idempotency_key", 400, "The Idempotency-Key is not allowed"


class Unauthorized(RequestError):
    code, status, title = "unauthorized", 401, "No valid API key"


class BadSignature(RequestError):
    code, status, title = "bad_signature", 403, "The link's signature is wrong"


class CrossOrigin(RequestError):
    code, status, title = "cross_origin", 403, "The request comes from another origin"


class NotFound(RequestError):
    code, status, title = "not_found", 404, "Not found"


class MethodNotAllowed(RequestError):
    code, status, title = "method_not_allowed", 405, "Method not allowed"


class BodyTimeout(RequestError):
    code, status, title, retryable = "body_timeout", 408, "The body came too slowly", True


class NoRaw(RequestError):
    code, status, title = "no_raw", 409, "There is no picture of this variation"


class StillRunning(RequestError):
    code, status, title = "running", 409, "The request is still running"


class LinkExpired(RequestError):
    code, status, title = "link_expired", 410, "The link has expired"


class RawGone(RequestError):
    code, status, title = "raw_gone", 410, "The picture as received is gone"


class Deleted(RequestError):
    code, status, title = "deleted", 410, "The request was deleted"


class PreconditionFailed(RequestError):
    code, status, title = "precondition_failed", 412, "A precondition does not hold"


class TooLarge(RequestError):
    code, status, title = "too_large", 413, "Too large"


class UnsupportedMediaType(RequestError):
    code, status, title = "unsupported_media_type", 415, "The body's type is not accepted"


class UnsupportedEncoding(RequestError):
    code, status, title = "unsupported_encoding", 415, "Encoded bodies are not accepted"


class RangeNotSatisfiable(RequestError):
    code, status, title = "range_not_satisfiable", 416, "The range lies outside the file"


class ExpectationFailed(RequestError):
    code, status, title = "expectation_failed", 417, "Unknown expectation"


class MissingField(RequestError):
    code, status, title = "missing_field", 422, "A field is missing"


class UnknownField(RequestError):
    code, status, title = "unknown_field", 422, "Unknown field"


class InvalidField(RequestError):
    code, status, title = "invalid_field", 422, "A field's value is not allowed"


class IdempotencyMismatch(RequestError):
    code, status, title = "idempotency_mismatch", 422, "The Idempotency-Key belongs to another request"


class UnpricedModel(RequestError):
    code, status, title = "unpriced_model", 422, "The model's price is unknown, and there is a budget"


class RateLimited(RequestError):
    code, status, title, retryable = "rate_limited", 429, "The rate of the API key is used up", True


class BudgetExhausted(RequestError):
    code, status, title, retryable = "budget_exhausted", 429, "The budget of the day is used up", True


class ImageError(RequestError):
    """A picture that cannot be read or used."""

    code, status, title = "undecodable", 422, "The picture cannot be used"


class UnsupportedImage(ImageError):
    code, status, title = "unsupported_image", 415, "The picture's type is not supported"


class TooManyPixels(ImageError):
    code = "too_many_pixels"


class TooCostly(ImageError):
    code = "too_costly"


class ImpossibleSize(ImageError):
    code = "impossible_size"


class GeminiError(ServiceError):
    """A call that gave no picture."""

    code, status, title = "gemini_failed", 502, "Gemini failed"


class Blocked(GeminiError):
    code, status, title = "blocked", 422, "Gemini refused the request"


class NoImage(GeminiError):
    code, status, title = "no_image", 422, "Gemini drew nothing"


class QuotaExhausted(GeminiError):
    code, status, title, retryable = "quota_exhausted", 429, "Gemini's quota is used up", True


class CreditsExhausted(QuotaExhausted):
    """A quota that does not reset by itself: the operator has to pay, or to raise a limit."""

    retryable = False


class GeminiAuth(GeminiError):
    code, title = "gemini_auth", "Gemini does not accept the service's key"


class GeminiRejected(GeminiError):
    code, title = "gemini_rejected", "Gemini rejected the call"


class GeminiFailed(GeminiError):
    retryable = True


class BadReply(GeminiError):
    code, title = "bad_reply", "Gemini's reply holds no picture that can be read"


class OutcomeUnknown(GeminiError):
    code, title = "outcome_unknown", "The connection broke; the call may have been billed"


class GeminiUnavailable(GeminiError):
    code, status, title, retryable = "gemini_unavailable", 503, "Gemini cannot be reached or is overloaded", True


class GeminiTimeout(GeminiError):
    code, status, title = "gemini_timeout", 504, "Gemini was too slow"


class NoExport(ServiceError):
    code, status, title = "no_export", 502, "No export could be made"


class Cancelled(ServiceError):
    code, status, title, retryable = "cancelled", 409, "The call was cancelled before it was sent", True


class RawMissing(ServiceError):
    code, status, title = "raw_missing", 502, "The picture was received, and is not there any more"


class Busy(ServiceError):
    code, status, title, retryable = "busy", 503, "The service is full", True


class Draining(ServiceError):
    code, status, title, retryable = "draining", 503, "The service is shutting down", True


class NotReady(ServiceError):
    code, status, title, retryable = "not_ready", 503, "The service is not able to work", True


class StorageUnavailable(ServiceError):
    code, status, title, retryable = "storage_unavailable", 503, "The storage cannot be written", True


class OutOfDescriptors(StorageUnavailable):
    """No file descriptor is free at the moment."""


class StorageFull(ServiceError):
    code, status, title, retryable = "storage_full", 507, "The storage is full", True
