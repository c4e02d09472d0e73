"""A trainer's directory behind real servers of each kind."""

from __future__ import annotations

import contextlib
import json
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.transfer.hadoop import hdfs_copy, put

Address = Callable[[str], str]
"""The address of a path in the directory."""


@contextlib.contextmanager
def ftp_directory(
    train: Path,
    commands: list[str] | None = None,
    without: Sequence[str] = (),
    cuts: dict[str, int] | None = None,
    *,
    trainer_may: str = "elr",
) -> Iterator[Address]:
    """For anybody, and for trainer with s3cret, who may what pyftpdlib's letters say; `commands`
    takes what the server was told, and those of `without` it does not know. After so many bytes of
    a file of `cuts` the server gives up, once."""
    with warnings.catch_warnings():
        # It stands on modules that newer Pythons do without.
        warnings.simplefilter("ignore")
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.filesystems import AbstractedFS
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.ioloop import IOLoop
        from pyftpdlib.servers import FTPServer

    class Files(AbstractedFS):  # type: ignore[misc]
        def open(self, filename: str, mode: str) -> Any:
            file = super().open(filename, mode)
            size = (cuts or {}).pop(Path(filename).name, None)
            return file if size is None else _CutFile(file, size)

    class Handler(FTPHandler):  # type: ignore[misc]
        def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
            if commands is not None:
                commands.append(line)
            super().pre_process_command(line, cmd, arg)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = FTPHandler.proto_cmds.items()
        Handler.proto_cmds = {name: facts for name, facts in known if name not in without}
        Handler.abstracted_fs = Files
        Handler.use_sendfile = False
        Handler.authorizer = DummyAuthorizer()
        Handler.authorizer.add_anonymous(str(train))
        Handler.authorizer.add_user("trainer", "s3cret", str(train), perm=trainer_may)
    # Of a login that is refused.
    Handler.auth_failed_timeout = 0
    server = FTPServer(("127.0.0.1", 0), Handler, ioloop=IOLoop())
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            server.serve_forever(timeout=0.02, blocking=False, handle_exit=False)
        server.close_all()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield lambda path: f"ftp://127.0.0.1:{server.address[1]}/{path}"
    finally:
        stopping.set()
        thread.join(10)


class _CutFile:
    """A file on a disk that breaks after so many bytes."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._left = size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(min(size, self._left))
        self._left -= len(data)
        if not data:
            raise OSError("the disk is broken")
        return data


@contextlib.contextmanager
def s3_server(port: int = 0) -> Iterator[Address]:
    """A server of what other such servers of this process were given."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer("127.0.0.1", port=port, verbose=False)
        server.start()
        host, found_port = server.get_host_and_port()
        query = f"?endpoint_override={host}:{found_port}&scheme=http&region=us-east-1"
        try:
            yield lambda path: f"s3://passes/{path}{query}"
        finally:
            server.stop()


@contextlib.contextmanager
def s3_bucket(train: Path) -> Iterator[Address]:
    """What is in the directory now, in a bucket `passes`."""
    with s3_server() as address:
        httpx.post(f"http://{_server_of(address)}/moto-api/reset", trust_env=False)
        with _client(address) as client:
            client.create_bucket(Bucket="passes")
        names = (str(path.relative_to(train)) for path in train.rglob("*") if path.is_file())
        upload(address, train, *names)
        yield address


def upload(address: Address, train: Path, *names: str) -> None:
    """Puts files of the directory, as they are now, into the bucket."""
    with _client(address) as client:
        for name in names:
            client.upload_file(str(train / name), "passes", name)


@contextlib.contextmanager
def denied(address: Address, action: str) -> Iterator[None]:
    """The bucket refuses an action to everybody."""
    resources = ["arn:aws:s3:::passes", "arn:aws:s3:::passes/*"]
    denial = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": resources}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denial]})
    with _client(address) as client:
        client.put_bucket_policy(Bucket="passes", Policy=policy)
        try:
            yield
        finally:
            client.delete_bucket_policy(Bucket="passes")


@contextlib.contextmanager
def _client(address: Address) -> Iterator[Any]:
    import boto3

    url = f"http://{_server_of(address)}"
    client: Any = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    with contextlib.closing(client):
        yield client


def _server_of(address: Address) -> str:
    return parse_qs(urlsplit(address("")).query)["endpoint_override"][0]


@contextlib.contextmanager
def hdfs_directory(train: Path) -> Iterator[Address]:
    """What is in the directory now, in a real HDFS."""
    with hdfs_copy(train) as root:
        yield lambda path: f"{root}/{path}"


def bring(serve: object, address: Address, train: Path, *names: str) -> None:
    """Has those servers that keep a copy take some files of the directory as they are now."""
    if serve is s3_bucket:
        upload(address, train, *names)
    elif serve is hdfs_directory:
        put(address("").rstrip("/"), train, *names)
