"""Ids to what a model's manifest makes of them: one seek a dict, then pooling, slot by slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.feeds import Feed, Ragged
from ctr_serving.network_manifest import Lookup, NetworkManifest
from ctr_serving.ops._instances import Instances
from ctr_serving.ops._op import OpCall
from ctr_serving.ops._pooling import pooled
from ctr_serving.trace import MissingKey
from cube_api import STATUS_FAILED, STATUS_MISSING, STATUS_WRONG_WIDTH, SeekResult
from cube_core.errors import PredictionError, WireError


async def look_up(call: OpCall, engine: str = "") -> Feed:
    """The inputs that the manifest of an engine's model describes: vectors of the instances' ids
    from all its dicts, pooled, the ids themselves, and the dense values.

    Keys without a row get the default vector of their slot and are counted; a slot without ids is
    zeros, or an empty sequence.

    Raises:
        WireError: the instances have another number of slots or dense values than the model.
        SeekError, VersionNotLoadedError: a dict could not be asked.
        PredictionError: a value is of another width.
    """
    manifest = call.engine(engine).manifest
    instances = call.instances
    _check_shapes(instances, manifest)
    is_single = instances.is_single
    whole = manifest.whole_inputs if is_single else {}
    slots = _by_slot(instances, _slots_of(manifest, whole))
    feed: dict[str, NDArray[Any] | Ragged] = {}
    vectors: dict[int, Ragged] = {}
    seeks = [
        _seek_whole(call, engine, dict_name, feed)
        if dict_name in whole
        else _seek(call, engine, dict_name, slots, vectors)
        for dict_name in manifest.dicts
    ]
    start_s = time.perf_counter()
    if len(seeks) == 1:
        await seeks[0]
    else:
        await asyncio.gather(*seeks)
    if seeks:
        call.engine(engine).took("seek", time.perf_counter() - start_s)
    side_by_side: dict[str, list[NDArray[np.float32]]] = {}
    for index, lookup in enumerate(manifest.lookups if vectors else ()):
        if lookup.dict_name in whole:
            continue
        if lookup.pooling == "sequence":
            feed[lookup.input] = vectors[index]
        else:
            columns = vectors[index].values if is_single else pooled(vectors[index], lookup.pooling)
            side_by_side.setdefault(lookup.input, []).append(columns)
    for name, each in side_by_side.items():
        feed[name] = each[0] if len(each) == 1 else np.concatenate(each, axis=1)
    for use in manifest.ids:
        ids = slots[use.slot]
        feed[use.input] = Ragged(ids.values[:, None], ids.offsets)
    if manifest.dense_input:
        feed[manifest.dense_input] = instances.dense
    return feed


async def _seek_whole(
    call: OpCall, engine: str, dict_name: str, feed: dict[str, NDArray[Any] | Ragged]
) -> None:
    """Fills the input that all vectors of a dict go to, one id a slot, and no others: they are
    asked for as they lie in it."""
    manifest, instances = call.engine(engine).manifest, call.instances
    lookups = manifest.whole_inputs[dict_name]
    slots = [lookup.slot for _, lookup in lookups]
    ids = instances.ids.reshape(instances.rows, -1)
    if slots != list(range(instances.slots)):
        ids = ids[:, slots]
    found = await call.engine(engine).seek_untimed(dict_name, ids.reshape(-1))
    if found.status.any():
        by_slot = found.rows.reshape(*ids.shape, -1)
        status = found.status.reshape(ids.shape)
        one_each = np.arange(instances.rows + 1)
        for place, (index, lookup) in enumerate(lookups):
            default_row = call.engine(engine).served.network.default_rows[index]
            of_slot = Ragged(ids[:, place], one_each)
            _fill(call, lookup, of_slot, by_slot[:, place], status[:, place], default_row)
        _tell_degraded(call, int((status == STATUS_FAILED).sum()), found)
    feed[lookups[0][1].input] = found.rows.reshape(instances.rows, -1)


async def _seek(
    call: OpCall,
    engine: str,
    dict_name: str,
    slots: dict[int, Ragged],
    vectors: dict[int, Ragged],
) -> None:
    """Puts down the vectors of all lookups in one dict, by number of the lookup."""
    manifest = call.engine(engine).manifest
    lookups = [
        (index, each) for index, each in enumerate(manifest.lookups) if each.dict_name == dict_name
    ]
    if not lookups:
        return
    ids = np.concatenate([slots[lookup.slot].values for _, lookup in lookups])
    found = await call.engine(engine).seek_untimed(dict_name, ids)
    is_whole = not found.status.any()
    begin = 0
    degraded = 0
    for index, lookup in lookups:
        offsets = slots[lookup.slot].offsets
        end = begin + int(offsets[-1])
        rows, status = found.rows[begin:end], found.status[begin:end]
        if not is_whole and status.any():
            default_row = call.engine(engine).served.network.default_rows[index]
            _fill(call, lookup, Ragged(ids[begin:end], offsets), rows, status, default_row)
            degraded += int((status == STATUS_FAILED).sum())
        vectors[index] = Ragged(rows, offsets)
        begin = end
    _tell_degraded(call, degraded, found)


def _fill(
    call: OpCall,
    lookup: Lookup,
    ids: Ragged,
    rows: NDArray[np.float32],
    status: NDArray[np.int32],
    default_row: NDArray[np.float32] | None,
) -> None:
    """Puts the default vector for ids of one slot without a row, and counts them."""
    row_of_id = np.repeat(np.arange(len(ids.offsets) - 1), np.diff(ids.offsets))
    wrong = np.flatnonzero(status == STATUS_WRONG_WIDTH)
    if wrong.size:
        key = int(ids.values.view(np.uint64)[wrong[0]])
        raise PredictionError(
            f"dict {lookup.dict_name}: the value of key {key} (instance {row_of_id[wrong[0]]},"
            f" slot {lookup.slot}) is not {rows.shape[1]} floats wide"
        )
    missing, failed = status == STATUS_MISSING, status == STATUS_FAILED
    if default_row is not None:
        rows[missing | failed] = default_row
    trace, counters, slots = call.request.trace, call.request.counters, call.instances.slots
    if trace.is_detailed:
        trace.missing += [
            MissingKey(int(row_of_id[place]), lookup.slot, int(ids.values[place]))
            for place in np.flatnonzero(missing)
        ]
    by_slot = np.zeros(slots, np.int64)
    by_slot[lookup.slot] = missing.sum()
    counters.count_missing(by_slot)
    if failed.any():
        by_slot[lookup.slot] = failed.sum()
        counters.count_failed(by_slot)


def _tell_degraded(call: OpCall, keys_num: int, found: SeekResult) -> None:
    if not keys_num:
        return
    reasons = "; ".join(str(error) for error in found.errors)
    text = f"degraded: {keys_num} keys have the default vector, for their shards failed: {reasons}"
    trace = call.request.trace
    trace.degraded = f"{trace.degraded}; {text}" if trace.degraded else text


def _by_slot(instances: Instances, wanted: set[int]) -> dict[int, Ragged]:
    """The ids of each slot."""
    if not instances.is_single:
        return {slot: instances.slot(slot) for slot in wanted}
    if not wanted:
        return {}
    ids = np.ascontiguousarray(instances.ids.reshape(instances.rows, -1).T)
    one_each = np.arange(instances.rows + 1)
    return {slot: Ragged(ids[slot], one_each) for slot in wanted}


def _slots_of(manifest: NetworkManifest, whole: Collection[str]) -> set[int]:
    """Those whose ids are needed slot by slot."""
    if len(whole) == len(manifest.dicts) and not manifest.ids:
        return set()
    lookups = [each.slot for each in manifest.lookups if each.dict_name not in whole]
    return {*lookups, *(each.slot for each in manifest.ids)}


def _check_shapes(instances: Instances, manifest: NetworkManifest) -> None:
    for field, found, wanted in (
        ("sparse_ids", instances.slots, manifest.slots),
        ("dense_ids", instances.dense.shape[1], manifest.dense_dim),
    ):
        if found != wanted:
            what = "slots of sparse_ids" if field == "sparse_ids" else field
            raise WireError(f"instance 0: {found} {what}, expected {wanted}")
