"""The price of a call that ended, as the ledger records it."""

import json

from service.errors import ServiceError
from service.gemini.costs import Pricing
from service.ledger.rows import CallRow
from service.ledger.steps import Failure, Receipt
from service.orders import Raw
from service.stored import error_to_json
from service.variations import EMULATOR_MODEL


def pricing_of(call: CallRow) -> Pricing:
    return Pricing(call.model, call.image_size, call.model == EMULATOR_MODEL)


def receipt_of(raw: Raw, pricing: Pricing) -> Receipt:
    """Of a call that returned a picture."""
    cost, estimated = pricing.cost(raw.usage)
    usage = None if raw.usage is None else json.dumps(raw.usage)
    return Receipt(raw.key, raw.source.sha256, raw.source.size, usage, cost, estimated)


def failure_of(error: ServiceError, pricing: Pricing) -> Failure:
    """Of a call without a picture: if it was billed, by the tokens that it counted, else by the list price."""
    cost, estimated = pricing.cost(error.usage) if error.billed else (None if error.billed is None else 0, False)
    usage = json.dumps(error.usage) if error.usage else None
    return Failure(error_to_json(error), error.billed, cost, error.storage_path, usage, estimated)
