"""Another number of shards: what is served is built and shipped anew, to the new servers.

Then the old servers and the new ones serve the same version, so that a client may change over at
any moment, with whatever version it pins.
"""

from __future__ import annotations

from cube_builder.job import BuildReport
from cube_core.errors import BuildError
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, State


def built_shard_num(settings: Settings, version: str) -> int | None:
    """Shards that a version was built into; None when it is not there."""
    try:
        return BuildReport.read(settings.output_address / version).shard_num
    except BuildError:
        return None


def has_other_shards(settings: Settings, version: str) -> bool:
    """Whether a version is built, into another number of shards than the configuration says; ""
    is none."""
    shard_num = built_shard_num(settings, version) if version else None
    return shard_num is not None and shard_num != settings.conf.shard_num


def reshard_record(settings: Settings, state: State) -> PassRecord | None:
    """The record of a pass that brings what is served to the new servers; None when it is built for
    them already, or nothing is served."""
    if not state.wanted or not has_other_shards(settings, state.wanted):
        return None
    passes = (each for each in state.records() if each.kind == "pass")
    served = next((each for each in passes if each.version == state.wanted), None)
    if served is None:
        return None
    order = state.next_order()
    # Ids of donefiles have no colon.
    return served.anew(order, id=f"reshard:{order}", kind="reshard")
