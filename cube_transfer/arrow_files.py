"""Files behind s3:// and hdfs://, through pyarrow's file systems.

Credentials are those of the environment: AWS_ACCESS_KEY_ID and the like, or Hadoop's configuration.
An endpoint other than Amazon's is in the address (`?endpoint_override=host:port&scheme=http`).
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from cube_core.errors import DeployError
from cube_core.file_list import ListedFile
from cube_transfer.remote import BLOCK_BYTES, NotThereError, Sink, shown


class ArrowFiles:
    """A `RemoteFiles`."""

    async def fetch(self, url: str, sink: Sink) -> None:
        await asyncio.to_thread(_fetch, url, sink)

    async def list(self, url: str) -> list[ListedFile] | None:
        return await asyncio.to_thread(_list, url)


def _fetch(url: str, sink: Sink) -> None:
    filesystem, path = _open(url)
    try:
        file = filesystem.open_input_file(path)
    except FileNotFoundError as error:
        raise NotThereError(f"{shown(url)}: no such file") from error
    except OSError as error:
        raise OSError(f"{shown(url)}: {error}") from error
    with file:
        offset = sink.size if sink.size <= file.size() else 0
        sink.begin(offset)
        file.seek(offset)
        while block := file.read(4 * BLOCK_BYTES):
            sink.write(block)


def _list(url: str) -> list[ListedFile]:
    import pyarrow.fs

    filesystem, path = _open(url)
    try:
        found = filesystem.get_file_info(pyarrow.fs.FileSelector(path))
    except FileNotFoundError as error:
        raise NotThereError(f"{shown(url)}: no such directory") from error
    return [ListedFile(name=info.base_name, size=info.size) for info in found if info.is_file]


def _open(url: str) -> tuple[Any, str]:
    parts = urlsplit(url)
    root = urlunsplit(parts._replace(path="", fragment=""))
    try:
        filesystem, root_path = _filesystem(root)
    except ValueError as error:
        raise DeployError(f"{shown(url)}: {error}") from error
    except OSError as error:
        # Of a library that is not there pyarrow tells every place that it has looked in.
        problem = str(error).partition("\n")[0]
        if "Unable to load" in problem:
            raise DeployError(
                f"{shown(url)}: {problem}: hdfs:// needs Hadoop's native client: libhdfs under "
                "HADOOP_HOME, a JVM under JAVA_HOME, and CLASSPATH (hadoop classpath --glob)"
            ) from error
        raise OSError(f"{shown(url)}: {problem}") from error
    return filesystem, root_path.rstrip("/") + unquote(parts.path)


@functools.lru_cache(maxsize=16)
def _filesystem(root: str) -> tuple[Any, str]:
    import pyarrow.fs

    filesystem, path = pyarrow.fs.FileSystem.from_uri(root)
    return filesystem, path
