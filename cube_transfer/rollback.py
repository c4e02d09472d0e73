"""Rollbacks: which version to go back to, and what that makes of the passes."""

from __future__ import annotations

import time

from cube_core.errors import BuildError, ControlError
from cube_core.versions import Version
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, Stage, State
from cube_transfer.tables import read_stack


def rollback_record(
    settings: Settings, state: State, version: str, under_way: PassRecord | None
) -> PassRecord:
    """Makes the record of a rollback, which begins where the tables are built already.

    Args:
        version: to go back to; "" for the one that was served before the present one.
        under_way: what is being deployed.

    Raises:
        ControlError: there is no such version, or it is not kept any more.
    """
    target = _named(state, version) if version else _previous(state, under_way)
    _require_kept(settings, state, target)
    order = state.next_order()
    return target.anew(
        order,
        # Ids of donefiles have no colon.
        id=f"rollback:{order}",
        kind="rollback",
        rolled_back=False,
        stage=Stage.BUILT,
        reached_at_s={Stage.BUILT.value: time.time()},
    )


def rolled_back_passes(state: State, rollback: PassRecord) -> list[PassRecord]:
    """The passes whose `rolled_back` changes with the rollback: newer ones than its target are, and
    the target is not."""
    target = _pass_of(state, rollback.version)
    if target is None:
        return []
    changed = [
        record.model_copy(update={"rolled_back": True})
        for record in _served(state)
        if record.order > target.order and not record.rolled_back
    ]
    return [*changed, target.model_copy(update={"rolled_back": False})]


def _named(state: State, version: str) -> PassRecord:
    name = str(Version.parse(version))
    record = _pass_of(state, name)
    if record is None:
        known = ", ".join(record.version for record in _served(state)) or "none"
        raise ControlError(f"version {name} was never served; these were: {known}")
    return record


def _previous(state: State, under_way: PassRecord | None) -> PassRecord:
    """The pass before the one that the servers serve, or are just switching to."""
    going_back = under_way is not None and under_way.kind == "rollback"
    current = _pass_of(state, under_way.version if under_way and going_back else state.wanted)
    if current is None:
        raise ControlError("nothing is served, so there is nothing to go back from")
    if under_way is not None and under_way.step == "switch" and not going_back:
        return current
    for record in _served(state):
        if record.order < current.order and not record.rolled_back:
            return record
    raise ControlError(f"no version was served before {current.version}")


def _require_kept(settings: Settings, state: State, target: PassRecord) -> None:
    models = settings.model_deploy_path
    try:
        stack = read_stack(settings, state, target.version)
        for version in stack.versions:
            stack.read(version)
    except BuildError as error:
        raise ControlError(f"version {target.version} is not kept any more: {error}") from error
    has_model = any(record.dense for record in state.stack_of(target.version))
    if models is not None and has_model and not (models / target.version).is_dir():
        raise ControlError(
            f"version {target.version} is not kept any more: {models / target.version} is missing"
        )


def _served(state: State) -> list[PassRecord]:
    """Passes that were served, newest first."""
    return [each for each in state.records() if each.kind == "pass" and each.stage.is_served]


def _pass_of(state: State, version: str) -> PassRecord | None:
    return next((record for record in _served(state) if record.version == version), None)
