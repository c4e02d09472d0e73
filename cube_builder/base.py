"""The base of a delta, where it was built beside it."""

from __future__ import annotations

from cube_builder.job import BuildJob, BuildReport
from cube_core.errors import BuildError

_FLOAT_BYTES = 4


def width_without_values(job: BuildJob, base: BuildReport | None) -> int:
    """Width of the values of a pass without any: that of its base. Over a base that is elsewhere a
    delta without values has any width; 0 when the pass needs values, since it is a base."""
    if not job.delta:
        return 0
    return _FLOAT_BYTES if base is None else base.value_bytes or _FLOAT_BYTES


def check_like_base(job: BuildJob, value_bytes: int, base: BuildReport | None) -> None:
    """Checks that a delta fits its base, which servers would find out late.

    Raises:
        BuildError: another dict, number of shards, width or quant; names both.
    """
    if base is None:
        return
    for field, found, wanted in (
        ("dict_name", job.dict_name, base.dict_name),
        ("shard_num", job.shard_num, base.shard_num),
        ("value_width", job.value_width, base.value_width),
        ("value_bytes", value_bytes, base.value_bytes),
        ("quant", job.quant, base.quant),
    ):
        if found != wanted:
            raise BuildError(
                f"{field} is {found}, but that of the base {job.base_version} is {wanted}"
            )
