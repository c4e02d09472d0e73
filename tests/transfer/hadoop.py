"""A real HDFS on loopback, a NameNode and a DataNode of Hadoop 2.7, for the tests of one module.

`make hadoop` fetches its jars.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until

_JARS = Path(__file__).parents[2] / "build" / "hadoop"
_SERVERS = "org.apache.hadoop.hdfs.server"
_ends = contextlib.ExitStack()
# Hadoop 2.7 is older than Java's modules.
_OPENED = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "nio", "util")]
_LOG4J = """\
log4j.rootLogger=INFO, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.SimpleLayout
"""


def put(root: str, train: Path, *names: str) -> None:
    """Puts files of a directory, as they are now, below an address."""
    filesystem, path = _filesystem(root)
    for name in names:
        target = f"{path}/{name}"
        filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        filesystem.put_file(str(train / name), target)


@contextlib.contextmanager
def hdfs_copy(train: Path) -> Iterator[str]:
    """The address of a new directory with the files that are below `train` now."""
    root = f"{_namenode()}/{uuid.uuid4().hex}"
    filesystem, path = _filesystem(root)
    filesystem.makedirs(path)
    put(root, train, *(str(at.relative_to(train)) for at in train.rglob("*") if at.is_file()))
    yield root
    filesystem.rm(path, recursive=True)


def _filesystem(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(address)
    return filesystem, str(path)


@pytest.fixture(scope="module", autouse=True)
def hdfs() -> Iterator[None]:
    """Ends what `hdfs_copy` has started, in the modules that import it."""
    yield
    _ends.close()
    _namenode.cache_clear()


@functools.cache
def _namenode() -> str:
    """Its address; starts both servers the first time."""
    if not list(_JARS.glob("hadoop-hdfs-*.jar")) or shutil.which("java") is None:
        pytest.skip("no HDFS is installed: make hadoop, and Java 17")
    directory = Path(tempfile.mkdtemp(prefix="cube-hdfs-"))
    _ends.callback(shutil.rmtree, directory, ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"hdfs://127.0.0.1:{free.getsockname()[1]}"
    _write_conf(directory, address)
    subprocess.run(
        _command(directory, "namenode.NameNode", "-format", "-force"),
        check=True,
        capture_output=True,
        timeout=60,
    )
    _start(directory, "namenode.NameNode", "Starting services required for active state")
    _start(directory, "datanode.DataNode", "Successfully sent block report")
    return address


def _write_conf(directory: Path, address: str) -> None:
    any_port = "127.0.0.1:0"
    _write_properties(
        directory / "core-site.xml",
        {"fs.defaultFS": address, "hadoop.tmp.dir": f"{directory}/data"},
    )
    _write_properties(
        directory / "hdfs-site.xml",
        {
            "dfs.datanode.address": any_port,
            "dfs.datanode.http.address": any_port,
            "dfs.datanode.ipc.address": any_port,
            "dfs.namenode.http-address": any_port,
            # Whoever asks is another user than the one who runs it.
            "dfs.permissions.enabled": "false",
            "dfs.replication": "1",
            # Needs a library that these jars are without.
            "dfs.webhdfs.enabled": "false",
        },
    )
    (directory / "log4j.properties").write_text(_LOG4J)
    for server in ("hdfs", "datanode"):
        (directory / "webapps" / server / "WEB-INF").mkdir(parents=True)


def _write_properties(path: Path, properties: Mapping[str, str]) -> None:
    lines = (
        f"<property><name>{name}</name><value>{value}</value></property>"
        for name, value in properties.items()
    )
    path.write_text(f"<configuration>{''.join(lines)}</configuration>")


def _command(directory: Path, server: str, *arguments: str) -> list[str]:
    java = ["java", *_OPENED, f"-Djava.io.tmpdir={directory}", "-Xmx256m"]
    return [*java, "-cp", f"{directory}:{_JARS}/*", f"{_SERVERS}.{server}", *arguments]


def _start(directory: Path, server: str, ready: str) -> None:
    log_path = directory / f"{server}.log"
    with log_path.open("w") as log:
        # It ends with this process too, also when that is killed.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *_command(directory, server)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    _ends.callback(_end, process)

    def is_ready() -> bool:
        text = log_path.read_text(errors="replace")
        assert process.poll() is None, text[-2000:]
        return ready in text

    wait_until(is_ready, timeout_s=60, what=f"{server} ready")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
