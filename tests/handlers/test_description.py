"""The description of the API has every route, status, field and code, and is a valid OpenAPI 3.1 document."""

import json
import re
from html.parser import HTMLParser

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from service.app import TABLE
from service.error_codes import classes
from service.errors import ServiceError
from service.schemas.openai import FIELDS as IMAGE_FIELDS
from service.schemas.openapi.curl import own_parameters
from service.schemas.openapi.page import page
from service.schemas.remedies import REMEDIES
from service.schemas.requests import EXPORT_FIELDS, PICTURE_FIELDS, THUMBNAIL_FIELDS
from tests.conftest import Serve
from tests.description import document, validator
from tests.helpers import Running, assert_problem

on_one_loop = pytest.mark.asyncio(loop_scope="session")

OPERATIONS = [
    (method, path, operation) for path, methods in document()["paths"].items() for method, operation in methods.items()
]
CONTENTS = [
    (f"{operation['operationId']} {status} {kind}", content)
    for _, _, operation in OPERATIONS
    for status, answer in operation["responses"].items()
    for kind, content in answer.get("content", {}).items()
]


def test_it_is_valid() -> None:
    assert list(OpenAPIV31SpecValidator(document()).iter_errors()) == []


def test_every_route_and_method_is_described_and_no_other() -> None:
    routes = {(route.method.lower(), route.path) for route in TABLE}
    heads = {("head", route.path) for route in TABLE if route.method == "GET" and route.head}
    assert {(method, path) for method, path, _ in OPERATIONS} == routes | heads


def test_every_operation_has_an_id_of_its_own_and_a_summary() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(ids) == len(set(ids))
    assert all(operation["summary"] for _, _, operation in OPERATIONS)


def test_every_parameter_of_a_path_is_described() -> None:
    for _, path, operation in OPERATIONS:
        named = {each["name"] for each in own_parameters(operation) if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), path


def test_every_error_code_is_in_the_answers_of_some_operation_under_its_status() -> None:
    described = {
        (code, int(status))
        for _, path, operation in OPERATIONS
        for status, answer in operation["responses"].items()
        for code in re.findall(r"`(\w+)`", answer["description"])
        if int(status) >= 400 and not path.startswith("/v1/")
    }
    # A method that an operation does not have belongs to none.
    missing = {(kind.code, kind.status) for kind in classes(ServiceError)} - described
    assert missing == {("method_not_allowed", 405)}


def test_a_problem_has_one_of_all_error_codes() -> None:
    codes = document()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert {*codes} == {kind.code for kind in classes(ServiceError)}


def test_errors_list_their_codes() -> None:
    for name, content in CONTENTS:
        if "problem+json" in name:
            for schema in content["schema"].get("anyOf", [content["schema"]]):
                _, refined = schema["allOf"]
                assert refined["properties"]["code"]["enum"], name
                assert refined["properties"]["status"] == {"const": int(name.split()[1])}
        elif "OpenAIError" in str(content.get("schema")):
            _, refined = content["schema"]["allOf"]
            assert refined["properties"]["error"]["properties"]["code"]["enum"], name


def test_every_answer_has_an_example_of_its_form() -> None:
    shared = document()["components"]["examples"]
    for name, content in CONTENTS:
        examples = [content["example"]] if "example" in content else []
        examples += [shared[each["$ref"].rpartition("/")[2]]["value"] for each in content.get("examples", {}).values()]
        assert examples or "json" not in name or name.startswith("show_openapi"), name
        for example in [] if "event-stream" in name else examples:
            validator(content["schema"]).validate(example)


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ("ThumbnailsMultipart", {*THUMBNAIL_FIELDS, "image"}),
        ("ThumbnailsJson", {*THUMBNAIL_FIELDS}),
        ("ThumbnailsUrlencoded", {*THUMBNAIL_FIELDS}),
        ("ExportsMultipart", {*PICTURE_FIELDS, "image", "base"}),
        ("ExportAgainMultipart", {*EXPORT_FIELDS, "base"}),
        ("ExportAgainJson", {*EXPORT_FIELDS}),
        ("ExportAgainUrlencoded", {*EXPORT_FIELDS}),
        ("ImagesJson", {*IMAGE_FIELDS}),
        ("ImageEditsMultipart", {*IMAGE_FIELDS, "image"}),
    ],
)
def test_every_field_is_described(schema: str, names: set[str]) -> None:
    described = document()["components"]["schemas"][schema]
    assert described["properties"].keys() == names
    assert all(each["description"] for each in described["properties"].values())
    for _, _, operation in OPERATIONS:
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if content["schema"]["$ref"].endswith(f"/{schema}"):
                without_files = {**described, "required": []}
                validator(without_files).validate(content["example"])


def test_files_are_binary() -> None:
    files = document()["components"]["schemas"]["ExportsMultipart"]["properties"]
    assert (files["image"]["type"], files["image"]["format"]) == ("string", "binary")


@on_one_loop
async def test_every_query_parameter_is_described(service: Running) -> None:
    for method, path, operation in OPERATIONS:
        if method != "get" or "unknown_field" not in operation["responses"].get("422", {}).get("description", ""):
            continue
        answer = await service.get(re.sub(r"{\w+}", "x", path) + "?no-such-parameter=1")
        if answer.status != 422:
            continue
        allowed = assert_problem(answer, 422, "unknown_field")["detail"].partition("allowed: ")[2]
        described = [each["name"] for each in own_parameters(operation) if each["in"] == "query"]
        assert allowed == (", ".join(described) or "none"), path


@on_one_loop
async def test_it_is_served_and_unchanged_while_the_service_runs(service: Running) -> None:
    answer = await service.get("/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json["openapi"].startswith("3.1.")
    assert answer.json["paths"].keys() == document()["paths"].keys()
    again = await service.get("/openapi.json", If_None_Match=answer.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", answer.headers["ETag"])
    head = await service.ask("HEAD", "/openapi.json")
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])


@on_one_loop
@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_it_obeys_the_host_rule_where_no_keys_are_set(service: Running, path: str) -> None:
    assert_problem(await service.get(path, Host="evil.example"), 403, "cross_origin")


@on_one_loop
async def test_it_needs_no_key_and_says_where_one_is_needed(serve: Serve) -> None:
    guarded = await serve(api_keys="k" * 16, max_variations=7, public_url="https://pictures.example/api")
    assert (await guarded.get("/docs", Host="any.example")).status == 200
    answer = await guarded.get("/openapi.json", Host="any.example")
    assert answer.status == 200
    paths = answer.json["paths"]
    assert paths["/api/thumbnails"]["post"]["security"] == [{"key": []}]
    assert paths["/healthz"]["get"]["security"] == []
    assert answer.json["servers"] == [{"url": "https://pictures.example/api"}]
    assert answer.json["components"]["schemas"]["ThumbnailsJson"]["properties"]["count"]["maximum"] == 7


class _Page(HTMLParser):
    """The anchors, links and elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")


@on_one_loop
async def test_the_page_has_a_paragraph_for_every_operation_error_and_schema(service: Running) -> None:
    found = _Page((await service.get("/docs")).body.decode())
    assert len(found.ids) == len(set(found.ids))
    assert {f"problem-{kind.code}" for kind in classes(ServiceError)} <= {*found.ids}
    assert {operation["operationId"] for method, _, operation in OPERATIONS if method != "head"} <= {*found.ids}
    assert {link[1:] for link in found.links if link.startswith("#")} <= {*found.ids}


@on_one_loop
async def test_the_page_works_offline_under_the_policy_of_the_studio(service: Running) -> None:
    answer = await service.get("/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == (await service.get("/")).headers["Content-Security-Policy"]
    found = _Page(answer.body.decode())
    assert not found.tags & {"script", "style", "iframe", "img"}
    assert not {name for name in found.attributes if name == "style" or name.startswith("on")}
    for link in {link.partition("#")[0] for link in found.links} - {""}:
        assert (await service.get(f"/{link}")).status == 200, link
    assert (await service.get("/docs", If_None_Match=answer.headers["ETag"])).status == 304


@on_one_loop
async def test_the_page_of_a_problem_is_where_its_type_leads(service: Running) -> None:
    problem = (await service.get("/no-such-route")).json
    path, _, fragment = problem["type"].partition("#")
    assert fragment in _Page((await service.get(path)).body.decode()).ids


@pytest.mark.parametrize("text", ["<b>", '"', "&amp;", "`<i>`", "[<a>](#x)"])
def test_text_is_escaped_in_the_page(text: str) -> None:
    changed = json.loads(json.dumps(document()))
    changed["info"]["title"] = text
    changed["paths"]["/healthz"]["get"]["summary"] = text
    changed["paths"]["/healthz"]["get"]["description"] = text
    assert not {"b", "i"} & _Page(page(changed)).tags
    assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;") in page(changed)


def test_every_error_has_a_remedy() -> None:
    assert REMEDIES.keys() == {kind.code for kind in classes(ServiceError)}
