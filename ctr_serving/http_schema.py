"""Bodies of `POST /v1/ctr/predict`, as the OpenAPI schema tells them."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from ctr_serving.criteo import DENSE_DIM, FIELD_BYTES_MAX, SLOTS, features_of_columns
from cube_core._native import encode_ctr_request
from cube_proto import ctr_prediction_pb2

INSTANCES_MAX = 65536
_FLOAT32_MAX = 3.4028234e38

# Floats that float32 holds, and no NaN: JSON has neither it nor infinity.
_Float = Annotated[
    float, Field(strict=True, ge=-_FLOAT32_MAX, le=_FLOAT32_MAX, allow_inf_nan=False)
]
_Int64 = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, Field(strict=True, ge=0, le=65536)]
_Category = Annotated[str, Field(strict=True, max_length=FIELD_BYTES_MAX)]


class Shape(NamedTuple):
    """What an instance has to have.

    Attributes:
        many_ids: a slot may have any number of ids, else it has one.
    """

    slots: int
    dense_dim: int
    many_ids: bool


class Instance(BaseModel):
    """Features of one instance, hashed and scaled by the caller."""

    model_config = ConfigDict(extra="forbid")

    sparse_ids: Annotated[list[_Int64], FailFast()] = Field(
        max_length=65536, description="one id a slot, or as many as ids_per_slot says, slot by slot"
    )
    ids_per_slot: Annotated[list[_Count], FailFast()] = Field(
        default_factory=list,
        max_length=4096,
        description="the number of ids of each slot; empty: one. For models of general ops",
    )
    dense_ids: Annotated[list[_Float], FailFast()] = Field(
        max_length=65536, description="as many values as the model takes"
    )

    @property
    def slots(self) -> int:
        return len(self.ids_per_slot or self.sparse_ids)


class CriteoRow(BaseModel):
    """The raw fields of one Criteo row; the server hashes and scales them as the example's trainer
    does."""

    model_config = ConfigDict(extra="forbid")

    integers: Annotated[list[_Float | None], FailFast()] = Field(
        min_length=DENSE_DIM, max_length=DENSE_DIM, description="I1 to I13; null: missing"
    )
    categories: Annotated[list[_Category | None], FailFast()] = Field(
        min_length=SLOTS,
        max_length=SLOTS,
        description=f"C1 to C26, hexadecimal in Criteo's data, at most {FIELD_BYTES_MAX} bytes"
        " each; null or empty: missing",
    )


class PredictRequest(BaseModel):
    """Instances to predict, in one of two forms."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["instances"]}, {"required": ["criteo_rows"]}]},
    )

    instances: Annotated[list[Instance], FailFast()] = Field(
        default_factory=list, max_length=INSTANCES_MAX
    )
    criteo_rows: Annotated[list[CriteoRow], FailFast()] = Field(
        default_factory=list, max_length=INSTANCES_MAX
    )

    @model_validator(mode="after")
    def _one_form(self) -> PredictRequest:
        if len(self.model_fields_set) != 1:
            raise PydanticCustomError("one_form", "give either instances or criteo_rows")
        return self

    def payload(self, shape: Shape | None) -> bytes:
        """The Request message.

        Args:
            shape: that of the model; None when only the ops know.

        Raises:
            FieldError: an instance does not fit the model; names the field.
        """
        if "criteo_rows" in self.model_fields_set:
            return self._criteo_payload(shape)
        for number, instance in enumerate(self.instances):
            _check_instance(number, instance, shape)
        # A model of one id a slot takes no counts, not even those that say one.
        has_counts = any(instance.ids_per_slot for instance in self.instances)
        if shape is None or (shape.many_ids and has_counts):
            return self._message()
        rows = len(self.instances)
        sparse_ids = np.array([each.sparse_ids for each in self.instances], np.int64)
        dense = np.array([each.dense_ids for each in self.instances], np.float32)
        return encode_ctr_request(
            sparse_ids.reshape(rows, shape.slots), dense.reshape(rows, shape.dense_dim)
        )

    def _message(self) -> bytes:
        message = ctr_prediction_pb2.Request()
        for instance in self.instances:
            message.instances.add(
                sparse_ids=instance.sparse_ids,
                dense_ids=instance.dense_ids,
                ids_per_slot=instance.ids_per_slot,
            )
        return message.SerializeToString()

    def _criteo_payload(self, shape: Shape | None) -> bytes:
        if shape is not None and shape[:2] != (SLOTS, DENSE_DIM):
            raise FieldError(
                ("criteo_rows",),
                f"the model takes {shape.slots} slots and {shape.dense_dim} dense values, not"
                f" Criteo's {SLOTS} and {DENSE_DIM}; send instances",
            )
        values = np.array([row.integers for row in self.criteo_rows], np.float64)
        columns: list[list[bytes]] = [[] for _ in range(SLOTS)]
        for number, row in enumerate(self.criteo_rows):
            for slot, category in enumerate(row.categories):
                columns[slot].append(_field_bytes(number, slot, category))
        features = features_of_columns(list(values.reshape(-1, DENSE_DIM).T), columns)
        return encode_ctr_request(features.sparse_ids, features.dense)


class Prediction(BaseModel):
    """The model's answer for one instance."""

    prob0: float = Field(description="of no click")
    prob1: float = Field(description="of a click")


class PredictResponse(BaseModel):
    """Predictions in the order of the instances."""

    predictions: list[Prediction]
    message: str = Field(
        default="", description="what the server has to say of a prediction that it made"
    )


class FieldProblem(BaseModel):
    """One wrong field of a request."""

    loc: list[str | int] = Field(description='where it is, as ["body", "instances", 0, …]')
    msg: str
    type: str


class InvalidRequest(BaseModel):
    """Why a body was refused."""

    detail: list[FieldProblem]


class Failure(BaseModel):
    """Why a request that is valid was not answered."""

    detail: str


class FieldError(Exception):
    """A field of a valid request does not fit the model.

    Args:
        loc: where it is in the body.
    """

    def __init__(self, loc: tuple[str | int, ...], problem: str) -> None:
        self.loc = loc
        self.problem = problem
        super().__init__(problem)


def _check_instance(number: int, instance: Instance, shape: Shape | None) -> None:
    ids, counts = len(instance.sparse_ids), instance.ids_per_slot
    if counts and sum(counts) != ids:
        raise FieldError(
            ("instances", number, "ids_per_slot"),
            f"counts {sum(counts)} ids, sparse_ids has {ids}",
        )
    if shape is None:
        return
    if counts and not shape.many_ids and set(counts) != {1}:
        raise FieldError(
            ("instances", number, "ids_per_slot"), "the model takes one id a slot; leave it out"
        )
    if instance.slots != shape.slots:
        field = "ids_per_slot" if counts else "sparse_ids"
        raise FieldError(
            ("instances", number, field),
            f"has {instance.slots} values, the model takes {shape.slots}",
        )
    if len(instance.dense_ids) != shape.dense_dim:
        raise FieldError(
            ("instances", number, "dense_ids"),
            f"has {len(instance.dense_ids)} values, the model takes {shape.dense_dim}",
        )


def _field_bytes(number: int, slot: int, category: str | None) -> bytes:
    field = (category or "").encode()
    if len(field) > FIELD_BYTES_MAX:
        raise FieldError(
            ("criteo_rows", number, "categories", slot),
            f"has {len(field)} bytes, over {FIELD_BYTES_MAX}",
        )
    return field
