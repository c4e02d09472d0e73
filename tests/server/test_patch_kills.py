"""Servers that are killed while they lay patches over a base and fold them."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path

import httpx
import pytest

from tests.processes import running
from tests.server.client import ServerClient
from tests.server.patches import PatchedDict, files_of
from tests.server.tables import KEY_COUNT

ARGUMENTS = ["--port=0", "--grpc_port=-1", "--data_dir=data", "--fold_percent=20"]
ROUNDS = 8
# Longer than a patch takes, so that every step of several is hit, and of folds.
KILL_AFTER_S_MAX = 0.15


def patch_on(client: ServerClient, table: PatchedDict, served: str, switched: list[str]) -> None:
    """Lays patch after patch over `served` until the server is gone."""
    over = int(served.partition("_")[2])
    with contextlib.suppress(httpx.HTTPError):
        while True:
            patch = 1 + max(int(version.partition("_")[2]) for version in table.passes)
            changed = range(patch % 5, KEY_COUNT, 5)
            deleted = range(patch % 11, KEY_COUNT, 97)
            version = table.place_patch(patch, changed, deleted, over)
            for cmd in ("bg_load_patch", "bg_switch"):
                answer = client.command(cmd, version=version)
                if answer.status_code != 200:
                    # A worker outlives its supervisor for a moment.
                    assert "the other process has ended" in answer.text
                    return
            switched.append(version)
            over = patch


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_a_whole_version_after_every_kill(
    tmp_path: Path, data_dir: Path, workers: int
) -> None:
    table = PatchedDict(data_dir)
    (data_dir / "VERSION").write_text("10_10")
    chance = random.Random(workers)
    switched = ["10_10"]
    arguments = [*ARGUMENTS, f"--workers={workers}"]
    for _ in range(ROUNDS if workers == 1 else 2):
        with (
            running("cube_server.main", arguments, cwd=tmp_path) as role,
            ServerClient(role) as client,
        ):
            served = client.state("status")[0]
            # What was switched to, or what was being switched to when it was killed.
            assert list(table.passes).index(served) >= list(table.passes).index(switched[-1])
            table.check(client, served, pinned=False)
            assert not [name for name in files_of(data_dir) if "/.incoming" in name]
            assert not list(data_dir.glob(".*"))
            patching = threading.Thread(
                target=patch_on, args=(client, table, served, switched := [served])
            )
            patching.start()
            patching.join(chance.uniform(0, KILL_AFTER_S_MAX))
            role.process.kill()
            role.process.wait()
            patching.join()
    assert len(table.passes) > ROUNDS / 2
