"""HDFS without Hadoop: hdfs-native's file system for fsspec. It reads core-site.xml and
hdfs-site.xml of HADOOP_CONF_DIR, where there are any, and takes HADOOP_USER_NAME or Kerberos."""

from __future__ import annotations

from typing import Any

from hdfs_native.fsspec import HdfsFileSystem

# Who asks tries again himself, and says so; its default of 15 takes minutes, in silence.
_ATTEMPTS = {"dfs.client.failover.max.attempts": "2"}


class NativeHdfs(HdfsFileSystem):
    """It also tells times under the name that pyarrow asks for."""

    def __init__(self, host: str | None = None, port: int | None = None, **options: Any) -> None:
        super().__init__(host, port, **{**_ATTEMPTS, **options})

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return _timed(super().info(path, **options))

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        found: list[Any] = super().ls(path, detail=detail, **options)
        return [_timed(each) for each in found] if detail else found


def _timed(info: dict[str, Any]) -> dict[str, Any]:
    return {**info, "mtime": info["modification_time"] / 1000}
