"""What a running installation shows of itself: addresses, health, metrics, documentation."""

import re
from typing import Any

import jsonschema
import pytest

from tests.processes import listening_addresses, tree
from tests.serving import Server

INFERENCE = {"/v1/chat/completions", "/v1/completions", "/v1/fim/completions", "/v1/embeddings"}
CONTROL = {
    "/v1/models",
    "/v1/models/{name}",
    "/v1/admin/api-keys",
    "/v1/admin/api-keys/{key_id}",
    "/v1/admin/usage",
    "/v1/admin/audit-logs",
    "/v1/organization/usage/completions",
    "/v1/organization/usage/embeddings",
    "/healthz",
    "/readyz",
    "/metrics",
}
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="session")
def document(server: Server) -> Any:
    answer = server.call("GET", "/openapi.json", key=None)
    assert answer.status == 200
    return answer.json


def test_nothing_listens_beyond_loopback(server: Server) -> None:
    port = server.host_and_port[1]
    found = {process.pid: listening_addresses(process.pid) for process in tree(server.process.pid)}
    assert found.pop(server.process.pid) == {f"0100007F:{port:04X}"}
    assert len(found) >= 2, "two engines"
    assert set().union(*found.values()) == set(), "engines listen on unix sockets alone"


def test_a_refused_route_without_a_key_says_nothing_of_what_there_is(server: Server) -> None:
    for path in ("/v1/models", "/v1/admin/usage", "/v1/nothing", "/nothing"):
        assert server.call("GET", path, key=None).status == 401


def test_health_needs_no_key(server: Server) -> None:
    assert server.call("GET", "/healthz", key=None).json == {"status": "ok"}
    ready = server.call("GET", "/readyz", key=None)
    assert ready.status == 200
    assert ready.json["parts"] == {"database": "ready", "engine brise": "ready", "engine minilm": "ready"}


def test_metrics_name_no_tenant_key_or_text(server: Server) -> None:
    key = server.new_key("metrics")
    assert server.chat("quite-a-rare-word", key=key.secret).status == 200
    text = server.call("GET", "/metrics", key=None).body.decode()
    for name in (
        "galerne_gateway_requests_total",
        "galerne_gateway_tokens_total",
        "galerne_gateway_ttft_seconds_bucket",
    ):
        assert name in text
    for secret in (key.id, key.secret, key.secret[:12], "quite-a-rare-word"):
        assert secret not in text


def test_the_documentation_page_loads_nothing_from_elsewhere(server: Server) -> None:
    page = server.call("GET", "/docs", key=None)
    assert page.status == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page.body.decode())
    assert loaded
    for address in loaded:
        assert address.startswith("/"), address
        assert server.call("GET", address, key=None).status == 200


def test_the_document_lists_every_route(document: Any) -> None:
    assert set(document["paths"]) >= INFERENCE | CONTROL
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Galerne"


def test_every_operation_has_a_unique_id_a_summary_and_answers(document: Any) -> None:
    operations = [
        operation for path in document["paths"].values() for method, operation in path.items() if method in METHODS
    ]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    for operation in operations:
        assert operation.get("summary")
        assert any(status.startswith("2") for status in operation["responses"])
        assert all(answer.get("description") for answer in operation["responses"].values())


def test_every_reference_leads_somewhere(document: Any) -> None:
    for reference in references(document):
        place = document
        assert reference.startswith("#/")
        for step in reference[2:].split("/"):
            place = place[step.replace("~1", "/").replace("~0", "~")]


def test_every_schema_is_json_schema(document: Any) -> None:
    schemas = [*document["components"]["schemas"].values(), *inline_schemas(document["paths"])]
    assert len(schemas) > 20
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_path_parameter_is_declared(document: Any) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                declared = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
                assert declared == set(re.findall(r"\{(\w+)\}", path)), path


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for each in value.values() for found in references(each)]
    if isinstance(value, list):
        return [found for each in value for found in references(each)]
    return []


def inline_schemas(value: Any) -> list[Any]:
    if isinstance(value, dict):
        own = [value["schema"]] if isinstance(value.get("schema"), dict) else []
        return own + [found for each in value.values() for found in inline_schemas(each)]
    if isinstance(value, list):
        return [found for each in value for found in inline_schemas(each)]
    return []
