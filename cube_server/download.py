"""Downloads of shard tables: fetched beside their place, verified, then renamed into it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cube_core._native import Table, crc32c, crc32c_file
from cube_core.errors import ControlError, CubeError
from cube_core.tls import ClientTls, TlsFiles
from cube_core.versions import Version
from cube_server.opening import check_table
from cube_server.store import DataDirectory

_PIECE_BYTES = 1 << 20
_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DownloadOrder:
    """A table to fetch: where from, and what it must be."""

    version: Version
    url: str
    size: int
    crc32c: int


class Downloads:
    """Runs downloads in threads, one at a time for each version.

    Args:
        tls: of https addresses.
        bytes_max: the flag `--download_bytes_max`.
    """

    def __init__(self, store: DataDirectory, tls: TlsFiles, bytes_max: int) -> None:
        self._store = store
        self._tls = tls
        self._bytes_max = bytes_max
        self._stopping = threading.Event()
        self._running: dict[Version, tuple[DownloadOrder, asyncio.Task[Path]]] = {}

    @property
    def versions(self) -> list[Version]:
        """Versions that are being fetched."""
        return list(self._running)

    async def run(self, order: DownloadOrder) -> Path:
        """Returns when the table is in place and verified; joins the same order under way.

        Raises:
            ControlError: names version, url and reason; nothing is left on disk.
        """
        running = self._running.get(order.version)
        if running is None:
            task = asyncio.create_task(asyncio.to_thread(self._fetch, order))
            self._running[order.version] = (order, task)
            task.add_done_callback(lambda _: self._running.pop(order.version))
        else:
            under_way, task = running
            if under_way != order:
                raise ControlError(
                    f"version {order.version} is being downloaded from {under_way.url} with"
                    " another url, size or crc32c; send the command again when that is over"
                )
        return await asyncio.shield(task)

    def stop(self) -> None:
        """Lets the downloads under way fail at their next piece."""
        self._stopping.set()

    def _fetch(self, order: DownloadOrder) -> Path:
        try:
            for path in self._store.tables(order.version):
                if path.stat().st_size == order.size and crc32c_file(str(path)) == order.crc32c:
                    return path
            if order.size > self._bytes_max:
                raise ControlError(
                    f"size={order.size} is over --download_bytes_max={self._bytes_max}"
                )
            return self._fetch_new(order)
        except (CubeError, OSError, ValueError) as error:
            raise ControlError(f"download of {order.url} for {order.version}: {error}") from error

    def _fetch_new(self, order: DownloadOrder) -> Path:
        temporary = self._store.temporary_path(order.version)
        try:
            self._write(order, temporary)
            table = Table.open(str(temporary), in_memory=False)
            check_table(table, order.version, self._store)
            return self._store.place(temporary, order.version, table.dict_name, table.shard)
        finally:
            self._store.discard(temporary)

    def _write(self, order: DownloadOrder, temporary: Path) -> None:
        size, checksum = 0, 0
        with temporary.open("wb") as file:
            with _pieces(order.url, self._tls) as pieces:
                for piece in pieces:
                    size += len(piece)
                    checksum = crc32c(piece, checksum)
                    if size > order.size:
                        raise ControlError(f"is longer than size={order.size}")
                    if self._stopping.is_set():
                        raise ControlError("the server stops")
                    file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if size != order.size:
            raise ControlError(f"is {size} bytes, not size={order.size}")
        if checksum != order.crc32c:
            raise ControlError(f"has crc32c={checksum}, not crc32c={order.crc32c}")


@contextmanager
def _pieces(url: str, tls: TlsFiles) -> Iterator[Iterator[bytes]]:
    # httpx takes a tenth of a second to import, which an empty server need not spend.
    import httpx

    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    try:
        scheme = httpx.URL(url).scheme
        if scheme not in ("http", "https"):
            raise ControlError("only http:// and https:// are fetched")
        context = ClientTls(tls).context() if scheme == "https" else False
        with (
            httpx.Client(timeout=timeout, trust_env=False, verify=context) as client,
            client.stream("GET", url, headers={"accept-encoding": "identity"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ControlError(f"the answer is HTTP {response.status_code}")
            yield response.iter_raw(_PIECE_BYTES)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ControlError(f"{type(error).__name__}: {error}") from error
