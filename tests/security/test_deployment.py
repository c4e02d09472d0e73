"""A pass brought into production with mutual TLS and tokens between all roles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cube_api import CubeClient
from cube_core.conf.cube_conf import DictConf, Node, TlsConf
from tests.processes import running
from tests.security.certificates import Authority, flags
from tests.transfer.passes import DICT_NAME, Trainer, rows_of
from tests.waiting import wait_until

TOKEN, WRONG_TOKEN = "token-to-operate", "another-secret"
KEYS = np.arange(100, dtype=np.uint64)


def test_all_roles_speak_tls_and_show_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBE_OPERATE_TOKEN", TOKEN)
    authority = Authority(tmp_path, "site")
    identity = authority.issue(trusts=authority.ca_file)
    trainer = Trainer(tmp_path / "train")
    server_flags = ["--port=0", "--grpc_port=-1", f"--dict_name={DICT_NAME}", *flags(identity)]
    with running("cube_server.main", server_flags, cwd=tmp_path) as server:
        conf = tmp_path / "transfer.conf"
        lines = [
            "[default]",
            f"dict_name: {DICT_NAME}",
            "mode: base_only",
            "download_mode: http",
            "wget_port: 8098",
            f"donefile_address: {trainer.donefile.parent}",
            f"output_address: {tmp_path / 'output'}",
            f"tmp_address: {tmp_path / 'tmp'}",
            "shard_num: 1",
            "copy_num: 1",
            "poll_interval_ms: 100",
            "[cube_agent]",
            f"cube0_0: 127.0.0.1:{server.port()}:./x",
        ]
        conf.write_text("\n".join([*lines, ""]))
        daemon_flags = [f"--config={conf}", "--port=0", *flags(identity)]
        with running("cube_transfer.main", daemon_flags, cwd=tmp_path) as daemon:
            trainer.announce(trainer.write("1"))
            tls = TlsConf(
                ca_file=identity.ca_file, cert_file=identity.cert_file, key_file=identity.key_file
            )
            node = Node(ip="127.0.0.1", port=server.port())
            dict_conf = DictConf(dict_name=DICT_NAME, shard=1, timeout=5000, nodes=[node], tls=tls)
            with CubeClient({DICT_NAME: dict_conf}) as client:

                def is_served() -> bool:
                    status = _command(daemon.port(), "status", *flags(identity))
                    return "serves 1_1" in status.stdout

                wait_until(is_served, 20, "the pass is served")
                np.testing.assert_array_equal(client.seek(DICT_NAME, KEYS).rows, rows_of("1", KEYS))
            paused = _command(daemon.port(), "pause", *flags(identity), token=WRONG_TOKEN)
            assert paused.returncode == 2
            assert "wrong or missing token" in paused.stderr
            assert _command(daemon.port(), "pause", *flags(identity)).stdout == "paused\n"
            stranger = _command(daemon.port(), "status", f"--tls_ca_file={identity.ca_file}")
            assert stranger.returncode == 2
        assert "what=bg_switch" in server.log()
        assert TOKEN not in server.log() + daemon.log()


def _command(
    port: int, name: str, *tls_flags: str, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "cube_transfer.main", *tls_flags,
            name, f"--url=https://127.0.0.1:{port}",
        ],
        env={**os.environ, "CUBE_OPERATE_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )  # fmt: skip
