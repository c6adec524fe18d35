"""What the description allows, and what it forbids, as schemathesis makes it: every answer is as described."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from tests.conftest import settings_in
from tests.helpers import SCRIPT, QuickEmulator, on_a_thread, picture_bytes

# A 5xx that is described, as of a model that Gemini does not have, is no fault of the service; 500 is.
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
# Larger exports take seconds each, and are answered in the same form.
LONGEST = 400
PICTURE = picture_bytes()


@dataclass
class Target:
    """A service, its description, and parameters of paths that lead to something."""

    url: str
    schema: Any
    known: dict[str, str]
    cases: int = 0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with on_a_thread(QuickEmulator().create_app()) as emulator:
        folder = tmp_path_factory.mktemp("schemathesis")
        settings = settings_in(folder, gemini_base_url=emulator, max_variations=2, gemini_retry_seconds=0)
        with on_a_thread(create_app(settings)) as url:
            made = requests.post(f"{url}/api/thumbnails", json={"script": SCRIPT, "formats": "jpeg"}, timeout=60).json()
            name = made["variations"][0]["exports"]["jpeg"]["file_path"].removeprefix("output/")
            schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
            yield Target(url, schema, {"request_id": made["request_id"], "variation_id": "var-1", "name": name})


def assert_answered_as_described(target: Target, case: "Case[Any]", *, real: bool) -> None:
    """Send a case; `real`: with a picture for a file, and a path that leads to something."""
    body: Any = case.body
    if real and case.method != "DELETE":
        case.path_parameters.update({name: target.known[name] for name in case.path_parameters if name != "id"})
    if isinstance(body, dict):
        body |= {name: PICTURE for name in ("image", "base") if real and name in body}
        body |= {name: min(body[name], LONGEST) for name in ("width", "height") if isinstance(body.get(name), int)}
    target.cases += 1
    answer = case.call(base_url=target.url, timeout=60)
    assert answer.status_code != 500, answer.text
    case.validate_response(answer, checks=CHECKS)


def check(target: Target, examples: int) -> None:
    """Send so many cases of each operation, of those that it allows and of those that it forbids."""
    for result in target.schema.get_all_operations():
        operation = result.ok()
        check_operation(target, operation.as_strategy(generation_mode=GenerationMode.POSITIVE), examples)
        # Nothing is forbidden in the path and the headers, which are texts.
        if len(operation.body) or len(operation.query):
            check_operation(target, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), examples)


@st.composite
def drawn(draw: st.DrawFn, cases: st.SearchStrategy[Any]) -> Any:
    """A case; schemathesis cannot tell whether some values of a file are allowed, and raises for those."""
    try:
        return draw(cases)
    except ValueError as error:
        hypothesis.assume("Binary" not in str(error))
        raise


def check_operation(target: Target, strategy: st.SearchStrategy[Any], examples: int) -> None:
    turns = itertools.count()

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(drawn(strategy))
    def send(case: "Case[Any]") -> None:
        assert_answered_as_described(target, case, real=next(turns) % 2 == 0)

    send()


def test_a_few_cases_of_each_operation_are_answered_as_described(target: Target) -> None:
    check(target, 1)


@pytest.mark.slow
def test_a_thousand_cases_are_answered_as_described(target: Target) -> None:
    before = target.cases
    check(target, 24)
    assert target.cases - before >= 1_000
