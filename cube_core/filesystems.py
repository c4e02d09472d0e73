"""File systems by address: pyarrow's, and fsspec's for what pyarrow cannot reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# Hadoop's names for what pyarrow knows under another.
_SCHEMES = {"s3a": "s3", "s3n": "s3"}
_UNKNOWN_SCHEME = "Unrecognized filesystem type"
# What pyarrow says the first time that libhdfs or a JVM is not there, and each time after it.
_NO_LIBHDFS = ("Unable to load", "attempt to load libhdfs failed")
_NEEDED_FOR_HDFS = (
    "hdfs:// needs pip install 'cube-serving[hdfs]', or Hadoop's native client: libhdfs under"
    " HADOOP_HOME, a JVM under JAVA_HOME, and CLASSPATH (hadoop classpath --glob)"
)


def filesystem_of(address: str) -> tuple[Any, str]:
    """The file system, as pyarrow's, of a path or of a URI such as hdfs://… or s3://…, and the path
    in it.

    HDFS is reached by Hadoop's own client where that is installed, else by hdfs-native, which needs
    neither a JVM nor Hadoop.

    Raises:
        ImportError: a library is not installed; says which one.
        ValueError: the address is malformed, or nobody knows its scheme.
        OSError: the file system cannot be reached.
    """
    import pyarrow.fs

    scheme, separator, rest = address.partition("://")
    if not separator:
        address = str(Path(address).absolute())
    elif scheme in _SCHEMES:
        address = f"{_SCHEMES[scheme]}://{rest}"
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(address)
    except (ValueError, OSError) as error:
        if scheme == "hdfs" and any(text in str(error) for text in _NO_LIBHDFS):
            found, path = _native_hdfs(address)
        elif _UNKNOWN_SCHEME in str(error):
            found, path = _in_fsspec(address)
        else:
            raise
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(found))
    return filesystem, path.rstrip("/")


def first_line(error: Exception) -> str:
    """Hadoop's errors come with the stack of the NameNode, and pyarrow tells every place where it
    has looked for a library."""
    return str(error).partition("\n")[0]


def _native_hdfs(address: str) -> tuple[Any, str]:
    try:
        from cube_core.native_hdfs import NativeHdfs
    except ImportError as error:
        raise ImportError(_NEEDED_FOR_HDFS) from error
    parts = urlsplit(address)
    try:
        return NativeHdfs(parts.hostname, parts.port), unquote(parts.path)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _in_fsspec(address: str) -> tuple[Any, str]:
    try:
        import fsspec.core
    except ImportError as error:
        scheme = address.partition("://")[0]
        raise ImportError(f"{scheme}:// needs fsspec: pip install fsspec") from error
    filesystem, path = fsspec.core.url_to_fs(address)
    return filesystem, str(path)
