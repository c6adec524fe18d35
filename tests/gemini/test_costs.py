"""Money is counted in whole nano-dollars, from what Gemini counted."""

from typing import Any

import pytest

from service.gemini.costs import RATES, cost, list_price, usd
from service.gemini.models import MODELS

USAGE = {
    "promptTokenCount": 12,
    "candidatesTokenCount": 1120,
    "thoughtsTokenCount": 268,
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}],
}


def test_a_usual_call_costs_what_the_bill_says() -> None:
    nano = cost("gemini-nano-banana-2.1", USAGE)
    assert nano == 12 * 1500 + 1120 * 30_000 + 268 * 7500
    assert usd(nano) == 0.035628


def test_without_details_all_candidate_tokens_are_pictures() -> None:
    plain = {name: value for name, value in USAGE.items() if name != "candidatesTokensDetails"}
    assert cost("gemini-nano-banana-2.1", plain) == cost("gemini-nano-banana-2.1", USAGE)


def test_text_that_came_beside_a_picture_is_priced_as_text() -> None:
    details = [{"modality": "TEXT", "tokenCount": 100}, {"modality": "IMAGE", "tokenCount": 1120}]
    usage = {"candidatesTokenCount": 1220, "candidatesTokensDetails": details}
    assert cost("gemini-3-pro-image", usage) == 100 * 12_000 + 1120 * 120_000


def test_snake_case_is_read_too() -> None:
    usage = {
        "prompt_token_count": 12,
        "candidates_token_count": 1120,
        "thoughts_token_count": 268,
        "candidates_tokens_details": [{"modality": "IMAGE", "token_count": 1120}],
    }
    assert cost("gemini-nano-banana-2.1", usage) == cost("gemini-nano-banana-2.1", USAGE)


@pytest.mark.parametrize("usage", [None, {}])
def test_without_a_usage_the_cost_is_unknown(usage: Any) -> None:
    assert cost("gemini-nano-banana-2.1", usage) is None


def test_a_model_without_rates_has_no_cost() -> None:
    assert cost("another-model", USAGE) is None
    assert list_price("another-model", "1K") is None


def test_a_count_may_come_as_its_digits() -> None:
    usage = {"promptTokenCount": "12", "candidatesTokenCount": "1120"}
    assert cost("gemini-nano-banana-2.1", usage) == 12 * 1500 + 1120 * 30_000


@pytest.mark.parametrize("odd", ["a", "-5", -5, True, None, [], 1.5])
def test_counts_that_are_no_counts_are_none(odd: Any) -> None:
    usage = {"promptTokenCount": 12, "candidatesTokenCount": odd, "candidatesTokensDetails": [odd]}
    assert cost("gemini-nano-banana-2.1", usage) == 12 * 1500


@pytest.mark.parametrize(
    ("nano", "shown"), [(0, 0.0), (499, 0.0), (500, 0.000001), (1499, 0.000001), (35_628_000, 0.035628)]
)
def test_rounded_half_up_to_micro_dollars(nano: int, shown: float) -> None:
    assert usd(nano) == shown


def test_every_model_of_the_table_has_rates_and_whole_prices() -> None:
    assert set(RATES) == set(MODELS)
    assert list_price("gemini-nano-banana-2.1", "1K") == 33_600_000
