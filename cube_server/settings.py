"""Settings of one shard server."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from cube_core.access import Access
from cube_core.tls import ServerTls, TlsFiles
from cube_core.wire.limits import WireLimits

DOWNLOAD_BYTES_MAX = 1 << 40
FOLD_PERCENT = 10.0
KEEP_REPLACED_S = 10.0
WANT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ServerSettings:
    """What the command line of `cube-server` says.

    Attributes:
        port: baidu_std and HTTP; 0 for any free one.
        grpc_port: 0 for any free one, None for no gRPC.
        data_dir: versions on disk, and VERSION with the name of the one to serve after a restart;
            with several dicts, a directory of that kind for each, by its name.
        dict_names: the dicts that are served, the first of which answers requests that name none;
            without any, those found in the data directory, and new ones that are downloaded.
        shard: the one shard that is served; None takes that of the first table.
        in_memory: read tables into memory; else map the files.
        keep_versions: versions kept, in memory and on disk, the current one counted.
        keep_replaced_s: others are kept in memory and on disk so long after they were replaced, for
            whoever pins them.
        keys_per_request_max: keys of one seek.
        download_bytes_max: of a table that a command has it fetch.
        workers: processes that answer seeks; with one, that is the process itself.
        fold_percent: a base is folded with its patches when they have changed more than so many
            percent of its keys; 0: never.
        tls: with a certificate, ports speak TLS only; tables are fetched with it over https.
        access: who may command the server.
        want_timeout_s: a server that was told which version is wanted waits so long after a
            restart to be told again, before it says that it is ready.
        drain_timeout_s: what is not answered that long after SIGTERM is cut off.
    """

    host: str = "127.0.0.1"
    port: int = 8001
    grpc_port: int | None = 9001
    data_dir: Path = Path("data")
    dict_names: tuple[str, ...] = ()
    shard: int | None = None
    in_memory: bool = True
    keep_versions: int = 2
    keep_replaced_s: float = KEEP_REPLACED_S
    keys_per_request_max: int = 1_000_000
    download_bytes_max: int = DOWNLOAD_BYTES_MAX
    workers: int = 1
    fold_percent: float = FOLD_PERCENT
    want_timeout_s: float = WANT_TIMEOUT_S
    tls: TlsFiles = field(default_factory=TlsFiles)
    access: Access = field(default_factory=Access)
    drain_timeout_s: float = 10.0
    limits: WireLimits = field(default_factory=WireLimits)

    def server_tls(self) -> ServerTls | None:
        """What the ports speak; None: no TLS.

        Raises:
            ConfError: a file cannot be used.
        """
        return ServerTls(self.tls) if self.tls.cert_file else None

    def limits_by_name(self) -> dict[str, float]:
        """Every limit, as `/status` tells them."""
        return {
            "keys_per_request_max": self.keys_per_request_max,
            "download_bytes_max": self.download_bytes_max,
            **asdict(self.limits),
            "keep_versions": self.keep_versions,
            "keep_replaced_s": self.keep_replaced_s,
            "fold_percent": self.fold_percent,
        }
