"""Which pass is next, by what the donefiles list and what was done before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cube_core.errors import DonefileError
from cube_core.versions import Version
from cube_transfer.donefile import DonefileEntry
from cube_transfer.state import PassRecord, Stage, State


def new_bases(entries: Sequence[DonefileEntry], state: State) -> Sequence[DonefileEntry]:
    """The lines below the last one that is known, but for those that go back. A pass that failed
    and whose line was changed since counts as new, so that it can be repaired in place."""
    newest = state.newest_numbered_base()
    return tuple(each for each in _below_known(entries, state) if not _goes_back(each, newest))


def bases_that_go_back(entries: Sequence[DonefileEntry], state: State) -> list[DonefileError]:
    """Why lines are not taken that a donefile has which took the place of another."""
    return _errors(_below_known(entries, state), state.newest_numbered_base())


def patches_that_go_back(entries: Sequence[DonefileEntry], state: State) -> list[DonefileError]:
    """As `bases_that_go_back`, of the patches of the base that is served."""
    return _errors(_below_served(entries, state), _newest_patch(state))


def _below_known(entries: Sequence[DonefileEntry], state: State) -> Sequence[DonefileEntry]:
    for position in range(len(entries), 0, -1):
        entry = entries[position - 1]
        record = state.pass_of(entry.version)
        if record is not None and not _is_repaired(record, entry):
            return entries[position:]
    return entries


def next_patch(entries: Sequence[DonefileEntry], state: State) -> DonefileEntry | None:
    """The patch that follows the newest one of the base that is served; None when there is none,
    or when it has failed. No later one is laid over what it should have changed."""
    pending = _pending(entries, state)
    if not pending:
        return None
    record = state.pass_of(pending[0].version)
    failed = record is not None and record.stage is Stage.FAILED
    if record is not None and failed and not _is_repaired(record, pending[0]):
        return None
    return pending[0]


def outdated_patches(entries: Sequence[DonefileEntry], state: State) -> list[DonefileEntry]:
    """New patches of bases that an other one has taken the place of."""
    found: list[DonefileEntry] = []
    for entry in reversed(entries):
        if state.pass_of(entry.version) is not None:
            break
        if _is_outdated(entry, state):
            found.append(entry)
    return found[::-1]


def waiting_patches(
    entries: Sequence[DonefileEntry], state: State, under_way: PassRecord | None
) -> Iterator[tuple[DonefileEntry, str]]:
    """Each patch that is not deployed yet, with what it waits for."""
    served_base = _served_base(state)
    before = ""
    for entry in _pending(entries, state):
        record = state.pass_of(entry.version)
        if record is not None and record.stage is Stage.FAILED:
            before = f"{record.version}, which failed: correct its line, take it out, or retry"
        elif under_way is None or under_way.version != str(entry.version):
            yield entry, before or "its turn"
    for entry in entries:
        known = state.pass_of(entry.version) is not None
        if entry.base != served_base and not known and not _is_outdated(entry, state):
            yield entry, f"its base {entry.base}_{entry.base}, which is not served"


def _pending(entries: Sequence[DonefileEntry], state: State) -> Sequence[DonefileEntry]:
    """The lines of the served base's patches below the last one that was served, but for those that
    go back."""
    newest = _newest_patch(state)
    return [each for each in _below_served(entries, state) if not _goes_back(each, newest)]


def _below_served(entries: Sequence[DonefileEntry], state: State) -> Sequence[DonefileEntry]:
    served_base = _served_base(state)
    ours = [entry for entry in entries if entry.base == served_base]
    for position in range(len(ours), 0, -1):
        record = state.pass_of(ours[position - 1].version)
        if record is not None and record.stage.is_served:
            return ours[position:]
    return ours


def _newest_patch(state: State) -> PassRecord | None:
    newest = state.newest_of_base(_served_base(state))
    return newest if newest is not None and newest.previous else None


def _goes_back(entry: DonefileEntry, newest: PassRecord | None) -> bool:
    if newest is None:
        return False
    newest_id = newest.parsed_version.version
    return newest_id.isdecimal() and entry.id.isdecimal() and int(entry.id) < int(newest_id)


def _errors(entries: Sequence[DonefileEntry], newest: PassRecord | None) -> list[DonefileError]:
    return [
        DonefileError(
            f"{each.where}: out of order: id {each.id} is below id "
            f"{newest.parsed_version.version}, which was served before"
        )
        for each in entries
        if newest is not None and _goes_back(each, newest)
    ]


def _served_base(state: State) -> str:
    return Version.parse(state.wanted).base if state.wanted else ""


def _is_outdated(entry: DonefileEntry, state: State) -> bool:
    base = state.pass_of(Version(entry.base, entry.base))
    current = state.pass_of(Version(_served_base(state), _served_base(state)))
    return base is not None and current is not None and base.order < current.order


def _is_repaired(record: PassRecord, entry: DonefileEntry) -> bool:
    return record.stage is Stage.FAILED and record.fields != dict(entry.fields)
