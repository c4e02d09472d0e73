"""What a request carries and what its answer says, the same for every wire and client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cube_core._native import encode_ctr_request, parse_ctr_response
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError, PredictionError, WireError
from cube_proto import ctr_prediction_pb2

Protocol = Literal["baidu_std", "grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        probabilities: float32[n, 2]: of no click, of a click.
        variant: tag of the variant that answered, for A/B tests.
        endpoint: the server that answered, "host:port".
        message: what the server has to say of predictions that it made, such as that default
            vectors stand for those of a shard that failed; "" for nothing.
    """

    probabilities: NDArray[np.float32]
    variant: str
    endpoint: str
    message: str = ""


def request_bytes(
    sparse_ids: NDArray[np.int64],
    dense: NDArray[np.float32],
    ids_per_slot: NDArray[np.integer[Any]] | None = None,
) -> bytes:
    """The Request message for int64[n, slots] and float32[n, dense]; with `ids_per_slot`, int[n,
    slots], for int64[m] and float32[n, dense].

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if ids_per_slot is not None:
        return _ragged_request_bytes(
            np.asarray(sparse_ids), np.asarray(dense), np.asarray(ids_per_slot)
        )
    return encode_ctr_request(
        np.ascontiguousarray(sparse_ids, np.int64), np.ascontiguousarray(dense, np.float32)
    )


def _ragged_request_bytes(
    sparse_ids: NDArray[np.int64], dense: NDArray[np.float32], counts: NDArray[np.integer[Any]]
) -> bytes:
    if counts.ndim != 2 or dense.ndim != 2 or len(dense) != len(counts) or (counts < 0).any():
        raise ValueError(
            f"ids_per_slot {counts.shape} and dense {dense.shape} must be [n, slots], not negative,"
            " and [n, dense]"
        )
    if sparse_ids.shape != (counts.sum(),):
        raise ValueError(f"sparse_ids {sparse_ids.shape}: ids_per_slot counts {counts.sum()} ids")
    request = ctr_prediction_pb2.Request()
    begin = 0
    for row_counts, row_dense in zip(counts.tolist(), dense.tolist(), strict=True):
        end = begin + sum(row_counts)
        request.instances.add(
            sparse_ids=sparse_ids[begin:end].tolist(), dense_ids=row_dense, ids_per_slot=row_counts
        )
        begin = end
    return request.SerializeToString()


def answer_of(response: bytes | memoryview, rows: int, variant: str, endpoint: Endpoint) -> Answer:
    """Reads the Response to a request of so many rows.

    Raises:
        PredictionError: the server could not predict.
        WireError: malformed, or another number of predictions.
    """
    probabilities, err_code, err_msg = parse_ctr_response(response)
    if err_code:
        raise PredictionError(f"{endpoint}: err_code {err_code}: {err_msg}", err_code)
    if len(probabilities) != rows:
        raise WireError(f"{endpoint}: {len(probabilities)} predictions for {rows} instances")
    return Answer(probabilities, variant, str(endpoint), err_msg)


def checked_protocol(protocol: str) -> Protocol:
    """The protocol, when it is one.

    Raises:
        ConfError: it is not.
    """
    if protocol not in PROTOCOLS:
        raise ConfError(
            "command line", "protocol", f"{protocol!r} is none of {', '.join(PROTOCOLS)}"
        )
    return protocol
