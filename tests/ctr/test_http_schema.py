"""`POST /v1/ctr/predict` does what its OpenAPI schema says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ctr_serving.http_predict import PATH
from ctr_serving.http_schema import Failure, InvalidRequest, PredictResponse
from tests.ctr.http_calls import changed, post, probabilities_of
from tests.ctr.models import DENSE_DIM, SLOTS
from tests.ctr.service import Ctr

MODELS_BY_STATUS: dict[int, type[BaseModel]] = {
    200: PredictResponse,
    422: InvalidRequest,
    413: Failure,
    503: Failure,
}


def resolved(node: Any, components: dict[str, Any]) -> Any:
    """The schema with every reference replaced by what it refers to."""
    if isinstance(node, list):
        return [resolved(each, components) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return resolved(components[node["$ref"].rpartition("/")[2]], components)
    return {name: resolved(value, components) for name, value in node.items()}


def values_of(schema: dict[str, Any], lengths: dict[str, int], name: str = "") -> Any:
    """What a JSON schema allows; arrays named in `lengths` are as long as the model wants them."""
    if "anyOf" in schema:
        return st.one_of(*(values_of(each, lengths) for each in schema["anyOf"]))
    if "oneOf" in schema:
        required = [each["required"] for each in schema["oneOf"]]
        plain = {key: value for key, value in schema.items() if key != "oneOf"}
        kept = [
            {**plain, "properties": {key: schema["properties"][key] for key in keys}}
            for keys in required
        ]
        return st.one_of(*(values_of(each, lengths) for each in kept))
    kind = schema["type"]
    if kind == "object":
        fields = schema["properties"].items()
        return st.fixed_dictionaries({key: values_of(value, lengths, key) for key, value in fields})
    if kind == "array":
        shortest, longest = schema.get("minItems", 0), min(schema["maxItems"], 3)
        if name in lengths:
            shortest = longest = lengths[name]
        longest = max(longest, shortest)
        return st.lists(values_of(schema["items"], lengths), min_size=shortest, max_size=longest)
    if kind == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    if kind == "number":
        return st.integers(-1000, 1000) | st.floats(-1e6, 1e6)
    if kind == "string":
        return st.text(st.characters(codec="utf-8"), max_size=20)
    assert kind == "null", schema
    return st.none()


@pytest.fixture(scope="module")
def operation(ctr: Ctr) -> dict[str, Any]:
    document = ctr.get("/openapi.json").json()
    operation: dict[str, Any] = resolved(
        document["paths"][PATH]["post"], document["components"]["schemas"]
    )
    return operation


def test_the_schema_tells_every_field_and_answer(operation: dict[str, Any]) -> None:
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"instances", "criteo_rows"}
    assert set(body["properties"]["instances"]["items"]["properties"]) == {
        "sparse_ids",
        "ids_per_slot",
        "dense_ids",
    }
    assert body["properties"]["criteo_rows"]["items"]["properties"]["categories"]["maxItems"] == 26
    assert set(operation["responses"]) == {"200", "413", "422", "503", "504"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_the_schema_allows_is_predicted(
    ctr: Ctr, operation: dict[str, Any], data: st.DataObject
) -> None:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    lengths = {"sparse_ids": SLOTS, "ids_per_slot": 0, "dense_ids": DENSE_DIM}
    body = data.draw(values_of(schema, lengths))
    answer = post(ctr, body)
    assert len(probabilities_of(answer)) == sum(map(len, body.values()))
    PredictResponse.model_validate_json(answer.content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    field=st.sampled_from(
        [
            ("instances",),
            ("instances", 1),
            ("instances", 0, "sparse_ids"),
            ("instances", 0, "sparse_ids", 25),
            ("instances", 0, "dense_ids"),
            ("instances", 0, "dense_ids", 0),
            ("instances", 0, "other"),
            ("other",),
        ]
    ),
    value=json_values,
)
def test_any_other_body_gets_an_answer_of_the_schema(
    ctr: Ctr, field: tuple[str | int, ...], value: Any
) -> None:
    answer = post(ctr, changed(field, value))
    model = MODELS_BY_STATUS[answer.status_code]
    model.model_validate_json(answer.content)
    if answer.status_code == 422:
        problem = InvalidRequest.model_validate_json(answer.content).detail[0]
        # A change that makes no JSON at all (NaN is none) is told for the whole body.
        assert problem.loc[1:2] in ([field[0]], [])
