"""The errors that outcomes of jobs mean."""

from service.error_codes import image_error
from service.errors import NoExport, ServiceError, StorageFull, StorageUnavailable
from service.imaging.errors import ImagingError, Unreadable
from service.imaging.formats import avif_refusal
from service.imaging.frame import Size
from service.imaging.plan import ExportOutcome, ExportWarning, Outcome


def require_files(outcome: Outcome) -> ExportOutcome:
    """An outcome with at least one file; raises the error of any other: `refusal`, or NoExport, StorageFull."""
    if not isinstance(outcome, ExportOutcome):
        raise refusal(outcome)
    if not outcome.files:
        raise _no_export(outcome)
    return outcome


def refusal(outcome: object) -> ServiceError:
    """The error of an outcome that is none of the wanted kind."""
    if isinstance(outcome, Unreadable):
        return StorageUnavailable(outcome.detail)
    if isinstance(outcome, ImagingError):
        return image_error(outcome.code, outcome.detail)
    return NoExport(f"a worker answered {type(outcome).__name__}")


def _no_export(outcome: ExportOutcome) -> ServiceError:
    """The error when every format was left out; its status is 422 if what the request asks for is the only reason."""
    failures = [warning for warning in outcome.warnings if warning.format]
    if any(warning.code == StorageFull.code for warning in failures):
        return StorageFull("no space is left in temp/")
    detail = "; ".join(warning.detail for warning in failures) or "no format was asked for"
    asked_for = all(_is_asked_for(warning, outcome.size) for warning in failures)
    return NoExport(detail, status=422 if asked_for else NoExport.status)


def _is_asked_for(failure: ExportWarning, size: Size) -> bool:
    """Whether a format was left out for what the request asks: a budget that nothing meets, or too large an AVIF."""
    return failure.code == "over_budget" or (failure.format == "avif" and avif_refusal(size) is not None)
