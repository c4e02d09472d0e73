"""`cube up` with real roles: all come up, stay up, and end; nobody else is touched."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cube_cluster.identity import Identity, identity_of, is_alive
from cube_cluster.processes_file import read_processes
from tests.cluster.site import TIMEOUT_S, Site, pids_of, states
from tests.waiting import wait_until


def test_a_deployment_from_up_to_down(tmp_path: Path) -> None:
    site = Site(tmp_path, server_count=2)
    try:
        _up_to_down(site)
    finally:
        site.clean()


def _up_to_down(site: Site) -> None:
    started = site.cube("up", "--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    for role, port in zip(
        ("cube_server_0", "cube_server_1", "cube_transfer_0"),
        (*site.server_ports, site.transfer_port),
        strict=True,
    ):
        assert f"port={port}" in started.stdout
        assert f"ready: port={port}" in site.log(role)
        assert (site.run_dir / role).is_dir()
    record = site.record()
    pids = pids_of(record)
    assert record.running() == ["cube_server_0", "cube_server_1", "cube_transfer_0"]

    told = site.cube("status")
    assert told.returncode == 1
    assert states(told.stdout)["cube_server_1"] == "d: no version is served"
    assert "no such file yet" in states(told.stdout)["cube_transfer_0"]
    as_json = {each["name"]: each for each in json.loads(site.cube("status", "--json").stdout)}
    assert as_json["cube_server_1"]["pid"] == site.identity("cube_server_1").pid
    assert as_json["cube_server_1"]["what"] == "d shard 1"
    assert 0 < as_json["cube_server_0"]["uptime_s"] < TIMEOUT_S

    _restart_on_demand(site)
    _a_death_is_healed(site)
    again = site.cube("up")
    assert again.returncode == 2
    assert f"is up already, run by pid {record.supervisor.pid}" in again.stderr

    alive = pids_of(site.record())
    ended = site.cube("down")
    assert ended.returncode == 0, ended.stderr
    assert "cube_transfer_0" in ended.stdout
    assert [pid for pid in {*pids, *alive} if identity_of(pid)] == []
    assert not (site.run_dir / "processes.json").exists()
    assert "nothing is up" in site.cube("down").stdout
    assert "ready: port=" in site.cube("logs", "cube_server_0").stdout


def _restart_on_demand(site: Site) -> None:
    before = [site.identity("cube_server_0"), site.identity("cube_server_1")]
    transfer = site.identity("cube_transfer_0")
    restarted = site.cube("restart", "cube-server")
    assert restarted.stdout.splitlines() == [
        "cube_server_0 is ready again",
        "cube_server_1 is ready again",
    ], restarted.stderr
    assert site.identity("cube_server_0") not in before
    assert site.identity("cube_server_1") not in before
    assert site.identity("cube_transfer_0") == transfer
    assert site.record().roles["cube_server_0"].restart_count == 0
    unknown = site.cube("restart", "cube_server_7")
    assert unknown.returncode == 2
    assert "there are cube_server_0, cube_server_1, cube_transfer_0" in unknown.stderr


def _a_death_is_healed(site: Site) -> None:
    victim = site.identity("cube_server_1")
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(
        lambda: (
            site.record().roles["cube_server_1"].state == "ready"
            and site.identity("cube_server_1") != victim
        ),
        TIMEOUT_S,
        "the role's restart",
    )
    role = site.record().roles["cube_server_1"]
    assert (role.restart_count, role.last_exit) == (1, "ended by SIGKILL")
    assert (
        "cube_server_1: ended by SIGKILL; it is started again"
        in (site.run_dir / "cube.log").read_text()
    )


def test_a_taken_port_is_named_with_its_holder_and_nothing_is_started(site: Site) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", site.transfer_port))
        listener.listen()
        refused = site.cube("up", "--detach")
    assert refused.returncode == 2
    holder = f"port {site.transfer_port} of cube_transfer_0 is taken by pid {os.getpid()} ("
    assert holder in refused.stderr
    assert f"{Path(sys.executable).name} " in refused.stderr
    assert not (site.run_dir / "cube_server_0").exists()
    assert read_processes(site.run_dir) is None


def test_a_role_that_cannot_start_ends_all_and_shows_its_log(site: Site) -> None:
    site.write({"flags": {"cube_transfer": {"state_dir": "cluster.yml/none"}}})
    refused = site.cube("up")
    assert refused.returncode == 2
    assert (
        "cube_transfer_0 ended with exit code 2; the end of run/cube_transfer_0" in refused.stderr
    )
    assert "cluster.yml/none" in refused.stderr
    assert read_processes(site.run_dir) is None
    assert "Traceback" not in refused.stderr


def test_ctrl_c_ends_a_foreground_deployment(site: Site) -> None:
    with subprocess.Popen(
        site.command("up"),
        cwd=site.folder,
        env=site.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_until(lambda: site.record().state == "up", TIMEOUT_S, "up")
            pids = pids_of(site.record())
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            if process.poll() is None:
                process.terminate()
    assert process.returncode == 0, output
    assert "cube_server_0" in output
    assert [pid for pid in pids if identity_of(pid)] == []


def test_roles_whose_supervisor_was_killed_are_found_and_ended(site: Site) -> None:
    assert site.cube("up", "--detach").returncode == 0
    record = site.record()
    os.kill(record.supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(record.supervisor), TIMEOUT_S, "the supervisor's end")
    refused = site.cube("up")
    assert refused.returncode == 2
    assert f"cube_server_0 (pid {site.identity('cube_server_0').pid})" in refused.stderr
    assert "`cube down` ends them" in refused.stderr
    assert "supervisor is gone" in site.cube("restart", "cube_server").stderr
    assert site.cube("down").stdout.startswith("ended cube_server_0, cube_transfer_0")
    assert [pid for pid in pids_of(record) if identity_of(pid)] == []


@pytest.mark.parametrize("stale", ["another start", "another boot"])
def test_a_stranger_with_a_reused_pid_is_left_alone(tmp_path: Path, stale: str) -> None:
    """processes.json tells of a pid that another process has by now."""
    site = Site(tmp_path)
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        own = identity_of(stranger.pid)
        assert own is not None
        told = own if stale == "another boot" else Identity(pid=own.pid, start_ticks=1)
        identity = told.model_dump()
        role = {
            "kind": "cube_server",
            "state": "ready",
            "identity": identity,
            "host": "127.0.0.1",
            "ports": {"port": site.server_ports[0]},
            "command": ["cube-server"],
            "log": "x",
        }
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = {
            "boot_id": "of another day" if stale == "another boot" else boot,
            "cluster_file": "cluster.yml",
            "state": "up",
            "supervisor": identity,
            "roles": {"cube_server_0": role},
        }
        site.run_dir.mkdir()
        (site.run_dir / "processes.json").write_text(json.dumps(processes))
        assert states(site.cube("status").stdout)["cube_server_0"] == "has ended"
        assert site.cube("down").returncode == 0
        assert read_processes(site.run_dir) is None
        assert identity_of(stranger.pid) == own
    finally:
        stranger.kill()
        stranger.wait()
