"""The instances of a request, with any number of ids a slot."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ctr_serving.feeds import Ragged
from cube_core._native import parse_ctr_request
from cube_core.errors import LimitError, WireError
from cube_proto import ctr_prediction_pb2

VALUES_PER_REQUEST_MAX = 1 << 22
"""Ids, slots and dense values of all instances together: each takes some 30 bytes for a while."""


class Instances(NamedTuple):
    """The features of n instances.

    Attributes:
        ids: int64[m], instance by instance, slot by slot.
        counts: int64[n, slots], ids of each slot.
        dense: float32[n, dense_dim].
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    dense: NDArray[np.float32]

    @property
    def rows(self) -> int:
        return len(self.counts)

    @property
    def slots(self) -> int:
        return int(self.counts.shape[1])

    @property
    def is_single(self) -> bool:
        """Whether every slot has one id, so that `ids` is int64[n * slots]."""
        return bool((self.counts == 1).all())

    def slot(self, slot: int) -> Ragged:
        """The ids int64[k] of one slot."""
        begins = np.concatenate([[0], np.cumsum(self.counts)])[:-1].reshape(self.counts.shape)
        counts = self.counts[:, slot]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(begins[:, slot] - offsets[:-1], counts)
        return Ragged(self.ids[places], offsets)


def parse_single(
    payload: bytes | memoryview, rows_max: int, *, slots: int, dense_dim: int
) -> Instances:
    """Request bytes to instances with one id in each slot, ten times as fast.

    Raises:
        WireError: malformed, or any other instances.
        LimitError: more than `rows_max` instances.
    """
    ids, dense = parse_ctr_request(payload, slots=slots, dense=dense_dim, rows_max=rows_max)
    return Instances(ids.reshape(-1), np.ones(ids.shape, np.int64), dense)


def parse_instances(payload: bytes | memoryview, rows_max: int) -> Instances:
    """Request bytes to instances, which all have as many slots and dense values as the first.

    Raises:
        WireError: malformed, or an instance that does not fit; names it.
        LimitError: more than `rows_max` instances, or more than 4 Mi values.
    """
    try:
        request = ctr_prediction_pb2.Request.FromString(bytes(payload))
    except DecodeError as error:
        raise WireError(f"Request: {error}") from error
    instances = request.instances
    if len(instances) > rows_max:
        raise LimitError(
            f"the request has {len(instances)} instances, over rows_per_request_max={rows_max}"
        )
    ids: list[int] = []
    counts: list[list[int]] = []
    dense: list[float] = []
    values_num = 0
    for instance in instances:
        values_num += len(instance.sparse_ids) + len(instance.dense_ids)
        values_num += len(instance.ids_per_slot) or len(instance.sparse_ids)
        if values_num > VALUES_PER_REQUEST_MAX:
            raise LimitError(
                f"the request has more than {VALUES_PER_REQUEST_MAX} ids, slots and dense values"
            )
        ids.extend(instance.sparse_ids)
        counts.append(list(instance.ids_per_slot) or [1] * len(instance.sparse_ids))
        dense.extend(instance.dense_ids)
        _check_like_first(len(counts) - 1, counts, instance, instances[0])
    rows = len(counts)
    return Instances(
        np.array(ids, np.int64),
        np.array(counts, np.int64).reshape(rows, -1 if rows else 0),
        np.array(dense, np.float32).reshape(rows, -1 if rows else 0),
    )


def _check_like_first(
    row: int,
    counts: list[list[int]],
    instance: ctr_prediction_pb2.CTRReqInstance,
    first: ctr_prediction_pb2.CTRReqInstance,
) -> None:
    if sum(counts[row]) != len(instance.sparse_ids):
        raise WireError(
            f"instance {row}: ids_per_slot counts {sum(counts[row])} ids, sparse_ids has"
            f" {len(instance.sparse_ids)}"
        )
    if len(counts[row]) != len(counts[0]):
        raise WireError(
            f"instance {row}: {len(counts[row])} slots, instance 0 has {len(counts[0])}; say in"
            " ids_per_slot where slots have other than one id"
        )
    if len(instance.dense_ids) != len(first.dense_ids):
        raise WireError(
            f"instance {row}: {len(instance.dense_ids)} dense_ids, instance 0 has"
            f" {len(first.dense_ids)}"
        )
