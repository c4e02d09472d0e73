"""Kernels of the data plane, in C++: tables, seeks, frames, requests, SequenceFiles.

Every function that takes bytes from outside checks all of them before it answers, and raises an
error of `cube_core.errors` that says what is wrong and at which offset; none of them crashes.
Arguments named `data`, `payload` or `body` take any contiguous buffer and keep no reference to it
unless stated. Long kernels release the GIL.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer, Self

STATUS_FOUND: int
"""0: the row holds the value of the key."""
STATUS_MISSING: int
"""-1: the key is not in the table; its row is zeros."""
STATUS_WRONG_WIDTH: int
"""-2: the value is of another width than the row; its row is zeros."""
STATUS_FAILED: int
"""-3: the shard of the key could not be asked; its row is zeros."""
STATUS_DELETED: int
"""-4: the key is deleted by the delta that was asked by itself; its row is zeros."""

# ---------------------------------------------------------------------------------------- tables

@final
class TableReport:
    """What `write_table` or `merge_tables` wrote."""

    @property
    def key_count(self) -> int:
        """Rows; in a delta, the deleted keys among them."""
    @property
    def deletion_count(self) -> int:
        """Deleted keys of a delta; 0 for a whole table."""
    @property
    def duplicate_count(self) -> int:
        """Input keys that a later pair, or deletion, of the same key replaced."""
    @property
    def file_bytes(self) -> int: ...
    @property
    def overhead_bytes_per_key(self) -> float:
        """File bytes over the values' own bytes, a key (0.0 for an empty table)."""
    @property
    def crc32c(self) -> int:
        """CRC32C of the whole file."""

def write_table(
    path: str,
    keys: NDArray[np.uint64],
    values: NDArray[np.uint8],
    *,
    dict_name: str,
    version: str,
    shard: int,
    shard_num: int,
    value_kind: str = "bytes",
    offsets: NDArray[np.int64] | None = None,
    base_version: str = "",
    deletions: NDArray[np.uint64] | None = None,
) -> TableReport:
    """Writes the immutable table of one shard (docs/table_format.md): a whole one, or a delta that
    holds what changes in a base.

    The file depends on the set of pairs, the names and the shard alone, not on the order of the
    input. Takes some 16 bytes of memory a key besides the arguments; the GIL is released.

    Args:
        path: target; written beside it under a temporary name, fsynced, then renamed.
        keys: uint64[n]; every key must satisfy `key % shard_num == shard`. The last of several
            equal keys wins.
        values: uint8[n, width], width 1 to 65,535. With `offsets` uint8[b], in which the value of
            key i, of 1 to 65,535 bytes, is between offsets i and i + 1.
        version: "<base>_<version>".
        value_kind: what `values` are: "bytes", served as they are, or rows that are served as
            float32: "fp16" (halves) or "int8" (float32 min, float32 max, a byte an element);
            or "variable": a width each, cut by `offsets`.
        offsets: int64[n + 1], rising.
        base_version: the version of the base that a delta is over; "" for a whole table.
        deletions: uint64[m], keys that the delta takes away; a key that is in `keys` too is
            deleted. For a delta only.

    Raises:
        ValueError: shapes that do not fit, a key of another shard (named), an empty name or one of
            over 160 bytes (of a delta, both versions together), deletions without a base.
        TypeError: arrays of another dtype, or not C-contiguous.
        OSError: the file cannot be written (nothing is left under `path`).
    """

def merge_tables(path: str, tables: Sequence[Table], *, version: str) -> TableReport:
    """Writes what tables of one shard hold together, the last of equal keys being right.

    A whole table and deltas over it become a whole table, without what was deleted; deltas over
    one base become a delta, deletions included. The file is the one that `write_table` makes of the
    same rows, byte for byte. Takes some 28 bytes of memory a row of the input besides the
    tables, whatever the width of the values; the GIL is released.

    Args:
        path: target; written beside it under a temporary name, fsynced, then renamed.
        tables: oldest first; all but the first are deltas. Tables made by `with_delta` are not
            taken (their `parts` are).
        version: of the result.

    Raises:
        ValueError: no tables, or an empty version or one that is too long.
        TableError: tables that do not belong together (file and field named).
        OSError: the file cannot be written (nothing is left under `path`).
    """

@final
class Table:
    """An immutable shard table in memory, every bound and checksum of it verified at open."""

    @staticmethod
    def open(path: str, *, in_memory: bool = True, shared: bool = False) -> Table:
        """Opens and verifies a table, in as many threads as there are cores (at most 4).

        Args:
            in_memory: read into anonymous memory (huge pages where the kernel gives them);
                else map the file.
            shared: read into memory that other processes can attach to (in huge pages from
                Linux 6.1 on).

        Raises:
            TableError: truncated, corrupt or of another format version; names file and offset.
            OSError: the file cannot be read.
        """
    @staticmethod
    def attach(path: str, descriptor: int) -> Table:
        """The table that another process has opened with `shared` or mapped: the same memory.

        What that process verified is not verified again, so take descriptors from it alone.

        Args:
            path: of the table's file, for messages.
            descriptor: `Table.descriptor` of the other process, as it came over a socket; it may
                be closed afterwards.

        Raises:
            TableError: the descriptor is of no table.
            OSError: it cannot be mapped.
        """
    def with_delta(self, delta: Table) -> Table:
        """The table that answers from this base and one delta over it: the delta's values replace
        the base's, what it deletes is missing, and `version` is the delta's.

        Both tables are shared, not copied; on top come 2 to 4 bytes of memory a row of the delta.
        Every row of the delta is looked up once (some 50 ns each), so call it in a thread when the
        delta is large; the GIL is released. Another process attaches to both `parts` and
        calls it there.

        Raises:
            TableError: `delta` is no delta over this table (file and field named).
        """
    @property
    def parts(self) -> tuple[Table, ...]:
        """(base, delta) of a table made by `with_delta`; else the table alone."""
    @property
    def descriptor(self) -> int:
        """What other processes can attach to, open as long as the table; -1 without, and for a
        table made by `with_delta`, whose `parts` have theirs."""
    @property
    def kind(self) -> str:
        """ "whole", or "delta": what changes in a base, and answers together with it alone."""
    @property
    def path(self) -> str:
        """Of its file; of the delta's, for a table made by `with_delta`."""
    @property
    def dict_name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def base_version(self) -> str:
        """Version of the base that a delta is over; "" for a whole table."""
    @property
    def shard(self) -> int: ...
    @property
    def shard_num(self) -> int: ...
    @property
    def key_count(self) -> int:
        """Keys that are answered; of a delta, its rows: the deleted keys among them."""
    @property
    def deletion_count(self) -> int:
        """Deleted keys of a delta; 0 for a whole table."""
    @property
    def value_bytes(self) -> int:
        """Width of every value as it is served; 0 when their width is variable."""
    @property
    def value_bytes_max(self) -> int:
        """Width of the widest value as it is served."""
    @property
    def value_kind(self) -> str:
        """How values are stored: "bytes", "fp16" or "int8", which are served as float32, or
        "variable"."""
    @property
    def file_bytes(self) -> int: ...
    @property
    def memory_bytes(self) -> int:
        """Bytes the table holds in memory or maps."""
    def get(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Values uint8[n, value_bytes] and status int32[n] of uint64[n] keys; the value of a
        missing key is zeros. What a delta deletes has STATUS_DELETED. A ValueError when the width
        is variable, as of `pairs`."""
    def get_bytes(
        self, keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int32]]:
        """Of any table: offsets int64[n + 1], values uint8[b] and status int32[n] of uint64[n]
        keys. Value i is between offsets i and i + 1, and empty when the key is missing."""
    def pairs(
        self, start_slot: int, pairs_max: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8], int]:
        """Keys uint64[m], values uint8[m, value_bytes] from `start_slot` on, m <= pairs_max, and
        the slot to go on from (equal to `slot_count` at the end). Fewer than `pairs_max`, even
        none, where slots hold a deletion or what the delta replaces."""
    def pairs_bytes(
        self, start_slot: int, pairs_max: int, bytes_max: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8], int]:
        """`pairs` of any table, with values as `get_bytes` gives them; ends with the one that
        brings them to `bytes_max`."""
    def deletions(self, start_slot: int, slots_max: int) -> tuple[NDArray[np.uint64], int]:
        """Keys uint64[m] that a delta deletes in the next `slots_max` slots, and the slot to go on
        from; none for a whole table."""
    @property
    def slot_count(self) -> int:
        """Rows of the table, those of both `parts` if it has two."""

def take_bytes(
    offsets: NDArray[np.int64], values: NDArray[np.uint8], indexes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The values with these indexes, in their order, of values uint8[b] that int64[n + 1] offsets
    cut.

    Raises:
        ValueError: offsets that do not rise inside the values, an index that is none.
    """

# --------------------------------------------------------------------------------- frames (PRPC)

@final
class Frame:
    """One baidu_std frame, request or response. Views keep the parsed buffer alive."""

    @property
    def correlation_id(self) -> int: ...
    @property
    def service(self) -> str:
        """Full or short service name; "" when the meta has no request."""
    @property
    def method(self) -> str: ...
    @property
    def is_request(self) -> bool: ...
    @property
    def timeout_ms(self) -> int:
        """0 when the caller set none."""
    @property
    def log_id(self) -> int: ...
    @property
    def compress_type(self) -> int: ...
    @property
    def error_code(self) -> int:
        """Of a response; 0 = success."""
    @property
    def error_text(self) -> str: ...
    @property
    def authentication(self) -> str:
        """The meta's authentication_data; "" without one."""
    @property
    def payload(self) -> memoryview: ...
    @property
    def attachment(self) -> memoryview: ...
    @property
    def fault(self) -> str:
        """Why a well-framed request cannot be taken ("attachment_size=… is larger than
        request_size=…"), to be answered with 1003; "" when it can."""

def parse_frames(data: bytes | memoryview, frame_bytes_max: int) -> tuple[list[Frame], int, int]:
    """Parses every complete frame at the start of `data`.

    Returns:
        the frames, the bytes they took, and the total bytes needed from there for the next frame
        (12 until its header is there; no more than there are when what follows is no frame).

    Raises:
        WireError: the *first* frame has a wrong magic, a meta that does not parse or is larger
            than its body, or a body over `frame_bytes_max`: the connection is to be closed. When
            good frames precede it, they are returned and the next call raises.
    """

def next_correlation_id() -> int:
    """A correlation id that no other request of this process has. Thread-safe."""

def encode_request_frame(
    service: str,
    method: str,
    correlation_id: int,
    payload: Buffer,
    *,
    attachment: Buffer = b"",
    timeout_ms: int = 0,
    log_id: int = 0,
) -> bytes: ...
def encode_response_frame(
    correlation_id: int, payload: Buffer, *, attachment: Buffer = b""
) -> bytes: ...
def encode_error_frame(correlation_id: int, error_code: int, error_text: str) -> bytes:
    """A response frame with meta only, as brpc sends errors."""

# ---------------------------------------------------------------------------------- shard server

LATENCY_BOUNDS_US: tuple[int, ...]
"""Upper bounds of the buckets of `Seeker.latency_counts`, in microseconds."""

@final
class Seeker:
    """Answers DictService from the tables of the loaded versions of one dict, or of several.

    One object serves for the life of the server: `set_tables` replaces what it answers from
    between two requests, and a request under way keeps the tables it began with. Thread-safe.
    """

    def __init__(self, keys_per_request_max: int, frame_bytes_max: int) -> None: ...
    def set_tables(
        self, current: Table | None, others: Sequence[Table] = (), *, dict_name: str = ""
    ) -> None:
        """`current` answers requests that pin no version; a pin is looked up in both.

        Args:
            dict_name: the dict whose tables they are. The first dict that was set answers requests
                that name none; "" stands for the name in its tables.

        Raises:
            ValueError: a delta by itself, which `Table.with_delta` lays over its base.
        """
    def seek(self, payload: Buffer) -> bytes:
        """DictRequest bytes in, DictResponse bytes out.

        Raises:
            WireError: the request does not parse (offset named).
            LimitError: more than `keys_per_request_max` keys.
            VersionNotLoadedError: the pinned version, any version, or the dict is not loaded.
        """
    def serve(
        self, data: bytes | memoryview, payload_bytes_max: int, address: str = ""
    ) -> tuple[bytes, list[Frame], int, int]:
        """Answers the complete DictService.seek frames at the start of `data` in one call.

        It ends early, after the frame that brings the answers over 1 MiB: call again while as many
        bytes as needed are left.

        Args:
            address: "ip:port" of the server; the text of error frames then begins with
                `[ip:port][E<code>]`, as brpc's servers begin it.

        Returns:
            the response frames, joined (errors of a seek are answered as error frames: 1003 for a
            malformed request, 2004 for a limit, 2001 for a version that is not loaded); the
            frames that are not for it, in order: other services and methods, requests with
            `fault`, a compress_type or an attachment, and seeks whose payload is over
            `payload_bytes_max` (to be answered off the event loop with `seek`); the bytes taken;
            the total bytes needed for the next frame, as `parse_frames`.

        Raises:
            WireError: as `parse_frames`.
        """
    @property
    def request_count(self) -> int: ...
    @property
    def key_count(self) -> int: ...
    @property
    def missing_count(self) -> int: ...
    @property
    def error_count(self) -> int: ...
    @property
    def last_failure(self) -> tuple[int, int, int, str]:
        """Of `serve` alone: how many seeks it answered with an error, and of the last one log_id,
        correlation_id and what was wrong."""
    @property
    def request_bytes(self) -> int:
        """Of all DictRequests."""
    @property
    def response_bytes(self) -> int:
        """Of all DictResponses."""
    @property
    def latency_counts(self) -> list[int]:
        """Requests by the time that the call which answered them took: one count a bucket, the
        last for those over every bound."""
    @property
    def latency_sum_ns(self) -> int: ...

# ---------------------------------------------------------------------------------- cube client

@final
class SeekPlan:
    """One batch of keys, cut over the shards by `key % shard_num`; a repeated key is asked for
    once."""

    def __init__(self, keys: NDArray[np.uint64], shard_num: int) -> None:
        """Copies `keys` (uint64[n], contiguous)."""
    @property
    def shards(self) -> list[int]:
        """Shards that own at least one of the keys, ascending."""
    def key_count(self, shard: int) -> int:
        """Different keys of the shard."""
    def payload(
        self,
        shard: int,
        *,
        version: str | None = None,
        version_required: bool = False,
        dict_name: str | None = None,
    ) -> bytes:
        """DictRequest bytes for the keys of `shard`."""
    def frame(
        self,
        shard: int,
        correlation_id: int,
        *,
        version: str | None = None,
        version_required: bool = False,
        timeout_ms: int = 0,
        dict_name: str | None = None,
        log_id: int = 0,
    ) -> bytes:
        """The same as one baidu_std frame to rec.mcube.DictService.seek."""
    @staticmethod
    def begin(
        keys: NDArray[np.uint64] | NDArray[np.int64],
        shard_num: int,
        *,
        version: str,
        timeout_ms: int,
        dict_name: str,
        log_id: int = 0,
    ) -> tuple[SeekPlan, list[tuple[int, int, bytes]]]:
        """The plan of a batch (keys uint64[n] or int64[n], contiguous), and for each of its shards
        the number, a new correlation id, and the frame that requires the version."""
    def value_bytes(self, shard: int, body: Buffer) -> int:
        """Width of the first found value in the DictResponse `body`; 0 when none is found."""
    def decode(
        self,
        shard: int,
        body: Buffer,
        rows: NDArray[np.float32],
        status: NDArray[np.int32],
    ) -> str | None:
        """Writes the shard's answers to their places in rows float32[n, dim] and status int32[n].

        Returns:
            the version in the response, if it names one.

        Raises:
            WireError: malformed, or another number of values than keys asked for.
        """
    def take(
        self,
        shard: int,
        answer: Frame,
        version: str,
        rows: NDArray[np.float32],
        status: NDArray[np.int32],
    ) -> bool:
        """Decodes a shard's answer as `decode` does, if it is a good one from that version.

        Returns:
            False when it is not; then what is in the arrays for this shard means nothing.
        """
    def check_bytes(self, shard: int, body: Buffer) -> str | None:
        """Checks that `gather_bytes` can take the DictResponse `body`, and returns and raises what
        `decode` does."""
    def gather_bytes(
        self, bodies: Sequence[tuple[int, Buffer]]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int32]]:
        """The values of all keys, whatever their widths, of shards and their DictResponses.

        Returns:
            offsets int64[n + 1], values uint8[b] and status int32[n]: value i is between offsets i
            and i + 1, and empty where status is not STATUS_FOUND. The keys of a shard without a
            body have STATUS_FAILED.

        Raises:
            WireError: as `check_bytes`.
        """
    def fail(self, shard: int, rows: NDArray[np.float32], status: NDArray[np.int32]) -> None:
        """Gives every key of the shard a row of zeros and STATUS_FAILED."""

# ----------------------------------------------------------------------------- CTR prediction

def parse_ctr_request(
    payload: Buffer, *, slots: int = 26, dense: int = 13, rows_max: int = 65536
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Request bytes to sparse_ids int64[n, slots] and dense_ids float32[n, dense].

    Raises:
        WireError: malformed (offset), or an instance with another number of ids or floats (names
            the instance, the number found and the number expected), or with ids_per_slot.
        LimitError: more than `rows_max` instances.
    """

def encode_ctr_request(sparse_ids: NDArray[np.int64], dense_ids: NDArray[np.float32]) -> bytes:
    """int64[n, slots] and float32[n, dense] to Request bytes."""

def encode_ctr_response(
    probabilities: NDArray[np.float32], *, err_code: int = 0, err_msg: str = ""
) -> bytes:
    """float32[n, 2] to Response bytes; err_msg is left out when empty."""

def parse_ctr_response(payload: Buffer) -> tuple[NDArray[np.float32], int, str]:
    """Response bytes to probabilities float32[n, 2], err_code and err_msg ("" when absent)."""

@final
class CtrFrames:
    """Requests for predictions that came together, their rows one after the other; len() is how
    many."""

    def __len__(self) -> int: ...
    @property
    def rows(self) -> int:
        """Instances of all requests."""
    @property
    def timeout_ms_min(self) -> int:
        """The smallest timeout of those that set one; 0 when none did."""
    @property
    def correlation_ids(self) -> list[int]: ...
    @property
    def log_ids(self) -> list[int]:
        """0 for those that set none."""
    @property
    def keys(self) -> NDArray[np.int64]:
        """int64[rows * slots], instance by instance; read-only, as long as this lives."""
    @property
    def dense(self) -> NDArray[np.float32]:
        """float32[rows, dense]; read-only, as long as this lives."""
    def part(self, first: int, count: int) -> CtrFrames:
        """Some of the requests by themselves."""
    def responses(self, probabilities: NDArray[np.float32]) -> bytes:
        """The response frames to all requests, from float32[rows, 2]."""

def take_ctr_frames(
    data: bytes | memoryview,
    *,
    slots: int,
    dense: int,
    requests_max: int,
    rows_max: int,
    payload_bytes_max: int,
    frame_bytes_max: int,
) -> tuple[CtrFrames | None, list[Frame], int, int]:
    """Takes plain CTRPredictionService.inference requests from the start of `data`, until there
    are `requests_max`, or one more would make more than `rows_max` rows.

    Returns:
        the requests, None when there is none; all other frames, among them requests that are
        malformed, have no instance, alone more than `rows_max`, or over `payload_bytes_max`; the
        bytes taken and those needed from there for the next frame, as `parse_frames` does.

    Raises:
        WireError: the first frame is none, as of `parse_frames`.
    """

# ------------------------------------------------------------------------------ cached rows

@final
class RowCache:
    """Rows float32[dim] of the keys of one version that are asked for most, and which keys have
    none; displaced by a clock, line by line of seven. len() is how many keys it has. Thread-safe.
    """

    def __init__(self, capacity_bytes: int, dim: int) -> None:
        """At least seven rows, whatever the capacity; memory is taken as it fills.

        Raises:
            ValueError: `dim` is not 1 to 16383.
            MemoryError: there is not that much.
        """
    @property
    def dim(self) -> int: ...
    @property
    def capacity(self) -> int:
        """Keys that it can have."""
    @property
    def bytes(self) -> int:
        """Memory when it is full."""
    @property
    def hits(self) -> int:
        """Keys that it answered."""
    @property
    def misses(self) -> int: ...
    def __len__(self) -> int: ...
    def get(
        self, keys: NDArray[np.uint64], rows: NDArray[np.float32], status: NDArray[np.int32]
    ) -> NDArray[np.uint32]:
        """Writes what it has of keys uint64[n] to rows float32[n, dim] and status int32[n]:
        STATUS_FOUND, or STATUS_MISSING with zeros.

        Returns:
            the places of all other keys, ascending.
        """
    def put(
        self, keys: NDArray[np.uint64], rows: NDArray[np.float32], status: NDArray[np.int32]
    ) -> None:
        """Takes rows that are STATUS_FOUND and notes keys that are STATUS_MISSING."""
    def fill(
        self,
        keys: NDArray[np.uint64],
        places: NDArray[np.uint32],
        found: NDArray[np.float32],
        found_status: NDArray[np.int32],
        rows: NDArray[np.float32],
        status: NDArray[np.int32],
    ) -> None:
        """Takes found float32[m, dim] and found_status int32[m] of the keys at the places that
        `get` returned, as `put` does, and writes them to these places of rows and status.

        Raises:
            ValueError: a place beyond the keys.
        """
    def hot_keys(self, count_max: int) -> NDArray[np.uint64]:
        """Keys that have a row, those asked for again first."""

# ------------------------------------------------------------------------------ SequenceFiles

@final
class SequenceFileReader:
    """Reads one SequenceFile (version 6) of key-embedding pairs, batch by batch.

    Keys are BytesWritable, LongWritable, IntWritable, VLongWritable or Text (a decimal number);
    values BytesWritable, Text (numbers between blanks) or ArrayWritable of FloatWritable, both of
    which come out as float32. The dialect is told apart per file: "paddle" (BytesWritable by name,
    but raw 8-byte little-endian keys and raw values) or "hadoop" (as the classes write
    themselves). A BytesWritable key holds 8 bytes little-endian in both. Negative keys are taken
    modulo 2^64. Values are 1 to 65,535 bytes.
    """

    def __init__(
        self,
        path: str,
        codecs: Callable[[str], Callable[[bytes, int], bytes]] | None = None,
        *,
        deletions: bool = False,
    ) -> None:
        """Reads the header and the first record.

        Args:
            codecs: gives the decompressor of a codec's class name; it is called with compressed
                bytes and the most bytes that may come out, and raises ValueError for bytes that
                are malformed or would be more. Without it compressed files are refused.
            deletions: `read_bytes` takes records with an empty value, which delete their key.

        Raises:
            SequenceFileError: truncated or malformed, compressed without `codecs` (codec named),
                or of another version or class (named); names file and offset.
            OSError: the file cannot be read.
        """
    @property
    def path(self) -> str: ...
    @property
    def dialect(self) -> str:
        """ "" when the file has no records."""
    @property
    def value_bytes(self) -> int:
        """Width of every value; 0 when the file has no records, or the first deletes its key."""
    @property
    def key_class(self) -> str: ...
    @property
    def value_class(self) -> str: ...
    @property
    def codec(self) -> str:
        """Class name of the codec; "" when the file is not compressed."""
    @property
    def file_bytes(self) -> int: ...
    @property
    def offset(self) -> int:
        """Bytes consumed so far."""
    def read(self, records_max: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """The next records: keys uint64[m], values uint8[m, width]; m == 0 at the end, and less
        than `records_max` where a block ends.

        Raises:
            SequenceFileError: truncated or malformed record, wrong sync marker, or a value of
                another width than the file's first (offset and key named).
        """
    def read_bytes(
        self, records_max: int, bytes_max: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]:
        """`read` for values of any width: keys uint64[m], offsets int64[m + 1] and values uint8[b];
        value i is between offsets i and i + 1. Ends with the record that brings them to `bytes_max`
        (or to 64 MiB)."""

@final
class SequenceFileWriter:
    """Writes one uncompressed SequenceFile, BytesWritable to BytesWritable.

    Equal input under an equal file name gives equal bytes. As a context manager it is closed when
    the block ends well, and leaves nothing when it fails.
    """

    def __init__(self, path: str, *, dialect: str = "hadoop") -> None:
        """dialect: "hadoop" or "paddle" (see the reader)."""
    def append(self, keys: NDArray[np.uint64], values: NDArray[np.uint8]) -> None:
        """uint64[n] and uint8[n, width], width 1 to 65,535; a sync marker about every 100 KiB.

        Raises:
            ValueError: shapes that do not fit, another width than before, or a closed file.
            OSError: the file cannot be written; `close` then refuses to publish it.
        """
    def append_bytes(
        self, keys: NDArray[np.uint64], offsets: NDArray[np.int64], values: NDArray[np.uint8]
    ) -> None:
        """`append` for values of any width: value i of uint8[b] is between offsets i and i + 1; an
        empty one deletes its key, in the input of a delta."""
    def close(self) -> None:
        """Flushes, fsyncs and renames into place; without it nothing is left under `path`."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

# ---------------------------------------------------------------------------------------- CPU

def cpu_level() -> str:
    """What the kernels use of the CPU: "baseline", "sse42", "avx2" or "avx512". It is the last of
    `cpu_levels`, or what the environment variable CUBE_CPU named when the module was imported (an
    ImportError when this CPU lacks it). Answers are the same bytes with every level."""

def cpu_levels() -> list[str]:
    """The levels that this CPU has, the baseline first; there are others on x86-64 only."""

# ----------------------------------------------------------------------- checksums and files

def crc32c(data: Buffer, value: int = 0) -> int:
    """CRC32C (Castagnoli) of `data`, continuing from `value`."""

def crc32c_file(path: str) -> int:
    """CRC32C of a whole file, read in blocks, GIL released."""

def replace_file(path: str, temporary: str, data: Buffer) -> None:
    """Writes `data` to the file `temporary`, fsyncs it, and renames it to `path`, in the same
    directory, which is fsynced too; all of it with the GIL released.

    Raises:
        OSError: names the file.
    """

# -------------------------------------------------------------------------------- compression

def snappy_decompress(data: Buffer, bytes_max: int) -> bytes:
    """Expands raw Snappy; the GIL is released when there is much of it.

    Raises:
        WireError: `data` is no Snappy (offset named).
        LimitError: it would be more than `bytes_max`; nothing is expanded.
    """

# --------------------------------------------------------------------------- pairs cut over shards

@final
class ShardPairs:
    """The pairs of a pass, cut over shards by `key % shard_num`: in memory, and in files of
    `directory` beyond what `keep_in_memory` lets stay there. Equal keys are in the order they came;
    others are as it suits `write_table`. Thread-safe; the GIL is released.

    Args:
        directory: exists; files of it are open no longer than a write takes, and those of a shard
            that is not taken are left to the caller.
        value_bytes: of every value; 0 when they have a width each.

    Raises:
        OSError: a file cannot be written, or read back as it was written.
        MemoryError: there is not that much.
    """

    def __init__(self, directory: str, shard_num: int, value_bytes: int) -> None: ...
    def add(
        self,
        keys: NDArray[np.uint64],
        values: NDArray[np.uint8],
        offsets: NDArray[np.int64] | None = None,
    ) -> None:
        """Adds uint64[n] keys and uint8[n, value_bytes] values; or uint8[b] values end to end, of
        up to 65,535 bytes, which int64[n + 1] offsets cut."""

    def largest(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The shard with the most pairs so far, and the one with the most bytes of values: each as
        shard, pairs, bytes of values (0 where they have one width)."""

    def keep_in_memory(self, bytes_max: int) -> None:
        """When more is in memory, writes out the largest shards until half of it is free."""

    def take(
        self, shard: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint16] | None]:
        """Gives all pairs of a shard away, and forgets them: keys uint64[n] and values
        uint8[n, value_bytes]; or values uint8[b] end to end and their widths uint16[n]."""
