"""Every error the package raises on purpose.

    CubeError
    ├── ConfError                a configuration file or flag: names file and field
    ├── FormatError              bytes from outside are malformed: says what, where, at which offset
    │   ├── TableError           a shard table
    │   ├── SequenceFileError    a SequenceFile
    │   ├── DonefileError        a line of a donefile
    │   └── WireError            a frame, request or response
    ├── LimitError               a named limit is exceeded
    │   └── OverloadError        by what is under way: the same request may be taken later
    ├── VersionNotLoadedError    a request pins a version that is not loaded
    ├── BuildError               a pass cannot be built into shard tables
    ├── DeployError              a pass cannot be shipped, loaded or switched
    ├── ControlError             a control command is refused
    ├── AccessError              who asks may not ask this: no token, or a wrong one
    │   └── RoleError            a token for less than this
    ├── ClusterError             the processes of a deployment cannot be started, found or ended
    ├── RpcError                 the peer answered with an error code, or could not be reached
    │   ├── ConnectError         no connection, or it was lost before the answer
    │   └── RpcTimeoutError      no answer in time
    ├── SeekError                a batch seek failed
    │   ├── MissingKeysError     keys are in no table, and the caller wants that to be an error
    │   ├── ShardError           a shard could not be asked: names dict, shard and endpoints
    │   └── SeekTimeoutError     the seek's own deadline passed
    ├── ModelError               a dense model cannot be loaded or does not fit its manifest
    └── PredictionError          a prediction cannot be answered
        └── NotServingError      not by this server, which has no model yet; others may

The kernels raise FormatError's children, LimitError and VersionNotLoadedError by importing them
from here, so this module imports nothing of the package.
"""

from __future__ import annotations


class CubeError(Exception):
    """Base of every error of this package."""


class ConfError(CubeError):
    """A configuration file, or a flag, is missing, malformed or out of range.

    Args:
        file: path of the file, or "command line".
        field: path of the field inside it ("" when the file as a whole is meant).
        problem: what is wrong and what to do.
    """

    def __init__(self, file: str, field: str, problem: str) -> None:
        self.file = file
        self.field = field
        self.problem = problem
        super().__init__(f"{file}: {field}: {problem}" if field else f"{file}: {problem}")


class FormatError(CubeError):
    """Bytes from outside are malformed; the message says what and at which offset."""


class TableError(FormatError):
    """A shard table is truncated, corrupt or of another format version."""


class SequenceFileError(FormatError):
    """A SequenceFile is truncated, corrupt or of a kind that is not read."""


class DonefileError(FormatError):
    """A line of a donefile cannot be used."""


class WireError(FormatError):
    """A frame, request or response is malformed."""


class LimitError(CubeError):
    """A named limit is exceeded; the message names the limit and its value."""


class OverloadError(LimitError):
    """Too much is under way for one more; the same request may be taken later, or elsewhere."""


class VersionNotLoadedError(CubeError):
    """A request pins a version that this server has not loaded."""


class BuildError(CubeError):
    """A pass cannot be built into shard tables."""


class DeployError(CubeError):
    """A pass cannot be shipped, loaded or switched."""


class ControlError(CubeError):
    """A control command is refused."""


class AccessError(CubeError):
    """Who asks may not ask this: it came with no token, or with a wrong one."""


class RoleError(AccessError):
    """Who asks has a token, but for less than this."""


class ClusterError(CubeError):
    """The processes of a deployment cannot be started, found or ended; names the role."""


class RpcError(CubeError):
    """The peer answered with an error.

    Args:
        message: the peer's error text, with the endpoint.
        code: brpc's error number (1001 no service, 1002 no method, 1003 bad request, …).
    """

    def __init__(self, message: str, code: int = 0) -> None:
        self.code = code
        super().__init__(message)


class ConnectError(RpcError):
    """No connection to the peer, or it was lost before the answer."""


class RpcTimeoutError(RpcError):
    """The peer did not answer in time."""


class SeekError(CubeError):
    """A batch seek failed as a whole; no row of it may be used."""


class MissingKeysError(SeekError):
    """Keys are in no table, and the caller wants that to be an error.

    Args:
        message: how many, with the first of them.
        keys: those keys, uint64[m].
    """

    def __init__(self, message: str, keys: object = ()) -> None:
        self.keys = keys
        super().__init__(message)


class ShardError(SeekError):
    """A shard could not be asked; the message names dict, shard and endpoints."""


class SeekTimeoutError(SeekError):
    """The deadline of the seek passed; the message names the shards that had not answered."""


class ModelError(CubeError):
    """A dense model cannot be loaded, or does not fit its manifest."""


class PredictionError(CubeError):
    """A prediction cannot be answered; the message says why.

    Args:
        message: the reason, on the client's side with the endpoint.
        err_code: that of the Response.
    """

    def __init__(self, message: str, err_code: int = -1) -> None:
        self.err_code = err_code
        super().__init__(message)


class NotServingError(PredictionError):
    """A server has no model yet; another one may answer the same request."""
