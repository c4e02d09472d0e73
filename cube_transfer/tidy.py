"""Clean-up after a pass and at start."""

from __future__ import annotations

import logging
import time

from cube_core.model_directory import published_version, remove_unfinished_publications
from cube_transfer.limits import MODEL_KEPT_S
from cube_transfer.retention import remove_all_but, remove_build_leftovers, remove_versions
from cube_transfer.settings import Settings
from cube_transfer.state import Stage, State

log = logging.getLogger(__name__)


def tidy(settings: Settings, state: State) -> None:
    """Keeps the `keep_versions` newest deployed versions, what is to be served, models that were
    published lately, and what a pass under way needs; removes the rest of what this daemon made.
    No builder may be running.

    What cannot be removed is logged: it takes room, but holds up no pass.
    """
    try:
        _tidy(settings, state)
    except OSError as error:
        log.warning("clean-up: %s", error)


def published_lately(state: State) -> set[str]:
    """Versions of the base that is served whose models a CTR server may still be loading."""
    since_s = time.time() - MODEL_KEPT_S
    return {
        record.version
        for record in state.stack_of(state.wanted)
        if record.reached_at_s.get(Stage.PUBLISHED.value, 0.0) > since_s
    }


def _tidy(settings: Settings, state: State) -> None:
    records = state.records()
    known = {record.version for record in records}
    deployed = [record for record in records if record.stage.is_served and record.kind == "pass"]
    good = [record.version for record in deployed if not record.rolled_back]
    newest = settings.conf.keep_versions
    under_way = state.unfinished()
    unfinished = {record.version for record in under_way}
    # What was rolled back from stays a while, to go forward to, but takes no place of a good one.
    kept = [*good[:newest], *(record.version for record in deployed[:newest])]
    keep = {*kept, state.wanted, *unfinished}
    # A patch is of no use without what it is laid over; its model is whole.
    layers = {layer.version for version in keep for layer in state.stack_of(version)}
    remove_versions(settings.output_address, known, keep | layers)
    remove_build_leftovers(settings.output_address, known)
    # The last step of a pass finds its pull still there; after it nothing needs it.
    needs_pull = {record.version for record in under_way if record.step != "tidy"}
    remove_all_but(settings.pulls, needs_pull)
    if settings.model_deploy_path is not None:
        published = published_version(settings.model_deploy_path)
        below = {record.previous for record in under_way}
        lately = published_lately(state)
        remove_versions(settings.model_deploy_path, known, {*keep, *below, *lately, published})
        remove_unfinished_publications(settings.model_deploy_path)
