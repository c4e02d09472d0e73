"""The probe that pods run where the kubelet cannot ask over mutual TLS."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.manifests import MANY, Site
from tests.processes import Role, running
from tests.security.certificates import Authority

TIMEOUT_S = 60.0


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Role]:
    """A shard server that wants certificates, and serves no version yet."""
    authority = Authority(tmp_path, "own")
    files = authority.issue(trusts=authority.ca_file)
    (tmp_path / "tls.crt").write_bytes(Path(files.cert_file).read_bytes())
    (tmp_path / "tls.key").write_bytes(Path(files.key_file or files.cert_file).read_bytes())
    arguments = [
        "--port=0",
        "--grpc_port=-1",
        "--data_dir=data",
        "--tls_cert_file=tls.crt",
        "--tls_key_file=tls.key",
        f"--tls_ca_file={files.ca_file}",
    ]
    with running("cube_server.main", arguments, cwd=tmp_path, ready_timeout_s=TIMEOUT_S) as role:
        yield role


def probe(site: Site, name: str, port: int, folder: Path) -> tuple[int, str]:
    """Runs a probe of the shard servers' pods, against a server of this machine."""
    template = site.template("cube-server")
    program, *arguments = template.container[f"{name}Probe"]["exec"]["command"]
    assert program == "python"
    command = [
        re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", each).replace("/etc/cube-tls", str(folder))
        for each in arguments
    ]
    ran = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout.strip()


def test_a_server_that_wants_certificates_is_asked(role: Role, tmp_path: Path) -> None:
    (tmp_path / "many.yml").write_text(MANY)
    site, port = Site.written_from(tmp_path / "many.yml"), role.port()
    assert probe(site, "liveness", port, tmp_path) == (0, "OK")
    code, told = probe(site, "readiness", port, tmp_path)
    assert (code, "version" in told) == (1, True), told
    role.stop()
    code, told = probe(site, "liveness", port, tmp_path)
    assert (code, "refused" in told.lower()) == (1, True), told


def test_without_a_certificate_there_is_no_answer(role: Role, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cube_core.probe", f"https://127.0.0.1:{role.port()}/health"]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (1, "")
    assert role.process.poll() is None, "and the server lives on"


def test_wrong_usage_is_no_success() -> None:
    for url in ("ftp://127.0.0.1/", "https://", "http://127.0.0.1:notaport/"):
        ran = subprocess.run(
            [sys.executable, "-m", "cube_core.probe", url],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (1, ""), url
