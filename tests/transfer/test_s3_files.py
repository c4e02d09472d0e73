"""Passes and donefiles behind a real S3 API."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cube_core.errors import DeployError
from cube_transfer.source import PulledPass
from tests.transfer.remote_pass import KEY_COUNT, leave_part, require_pulled, write_pass
from tests.transfer.site import Site

pytest.importorskip("pyarrow")


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_pass(tmp_path / "trainer")


@pytest.fixture
def pulled(tmp_path: Path) -> PulledPass:
    return PulledPass(tmp_path / "pulls" / "1_1")


@pytest.fixture
def query(train: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of addresses of the server, whose bucket `passes` holds the pass and its donefile."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    line = {"id": "1", "key": "1", "input": "../1/embedding", "dense": "../1/dense"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import boto3
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client: Any = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        client.create_bucket(Bucket="passes")
        for path in (path for path in train.rglob("*") if path.is_file()):
            client.upload_file(str(path), "passes", str(path.relative_to(train)))
        donefile = json.dumps(line).encode() + b"\n"
        client.put_object(Bucket="passes", Key="donefile/base.txt", Body=donefile)
        client.close()
        yield f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        server.stop()


async def _pull(pulled: PulledPass, location: str, dense: str = "") -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        if dense:
            await pulled.pull_dense(dense, http)
        await pulled.pull_input(location, http)


async def test_a_pass_is_resumed(train: Path, pulled: PulledPass, query: str) -> None:
    part = train / "1" / "embedding" / "part-00001"
    leave_part(pulled, part.name, part.read_bytes()[:700])
    await _pull(pulled, f"s3://passes/1/embedding{query}", f"s3://passes/1/dense{query}")
    require_pulled(pulled, train)
    pulled.remove()
    # What is taken on is not read again: a wrong beginning shows in the checksum.
    leave_part(pulled, part.name, b"x" * 700)
    with pytest.raises(OSError, match="read anew"):
        await _pull(pulled, f"s3://passes/1/embedding{query}")
    pulled.remove()
    with pytest.raises(DeployError, match="s3://passes/nowhere"):
        await _pull(pulled, f"s3://passes/nowhere{query}")


def test_a_donefile(site: Site, query: str) -> None:
    with site.transfer(donefile_address=f"s3://passes/donefile{query}"):
        site.await_stage("1", "done")
        site.require_served("1", key_count=KEY_COUNT)
        assert site.published() == "1_1"
        site.require_tidy()
