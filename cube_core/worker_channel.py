"""Questions and answers between a supervisor and one worker, with descriptors of tables.

Each message is one packet of a unix socket: {"id", "ask", "body"} or {"id", "answer"} or
{"id", "error": [class, text]}, in JSON.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cube_core import errors
from cube_core.errors import ConfError, CubeError, LimitError, RpcError

MESSAGE_BYTES_MAX = 128 << 10
"""One message; a longer one is refused by its sender."""

DESCRIPTORS_MAX = 128
"""That come with one message."""

Answer = Callable[[str, dict[str, Any], list[int]], Awaitable[Any]]


class ChannelClosedError(CubeError):
    """The process on the other side has ended."""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, each with room for the longest message."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_BYTES_MAX)
    return pair


def start_worker(module: str, *arguments: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that runs `module` with the descriptor of its end of a channel as the first
    argument, and the end of this process.

    Raises:
        ConfError: the system has no room for another process, which may pass.
    """
    try:
        ours, theirs = channel_pair()
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-m", module, str(theirs.fileno()), *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
        except BaseException:
            ours.close()
            raise
    except OSError as error:
        raise no_worker(error) from error
    return process, ours


def no_worker(error: BaseException) -> ConfError:
    """What is told when a worker does not start."""
    return ConfError("command line", "--workers", f"no worker starts: {error}")


class Channel:
    """One end. Both may ask; questions are answered in tasks, in any order.

    Args:
        end: of `channel_pair`; the channel closes it.
        answer: called with what is asked, the body and descriptors, which are closed when it
            has returned. Its errors go back to who asked.
    """

    def __init__(self, end: socket.socket, answer: Answer) -> None:
        self._end = end
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._next_id = 0
        self.closed = asyncio.Event()
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._receive)

    async def ask(
        self, what: str, body: dict[str, Any] | None = None, descriptors: Sequence[int] = ()
    ) -> Any:
        """Asks the other side and returns its answer. `descriptors` may be closed at once.

        Raises:
            CubeError: what the other side raised, as the same class.
            ChannelClosedError: it has ended, or ends before it answers.
        """
        if self.closed.is_set():
            raise ChannelClosedError("the other process has ended")
        number = self._next_id
        self._next_id += 1
        future = self._asked[number] = self._loop.create_future()
        try:
            message = {"id": number, "ask": what, "body": body or {}}
            self._send(message, [os.dup(each) for each in descriptors])
            return await future
        finally:
            self._asked.pop(number, None)

    def close(self) -> None:
        """Ends the channel; whoever waits for an answer gets ChannelClosedError."""
        if self.closed.is_set():
            return
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        self._end.close()
        while self._unsent:
            _close_all(self._unsent.popleft()[1])
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelClosedError("the other process has ended"))
        self.closed.set()

    def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MESSAGE_BYTES_MAX:
            _close_all(descriptors)
            raise LimitError(
                f"{len(data)} bytes are over the {MESSAGE_BYTES_MAX} of a message between workers"
            )
        self._unsent.append((data, descriptors))
        if len(self._unsent) == 1:
            self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._end, [data], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._end.fileno(), self._send_unsent)
                return
            except OSError:
                self.close()
                return
            self._unsent.popleft()
            _close_all(descriptors)
        self._loop.remove_writer(self._end.fileno())

    def _receive(self) -> None:
        # Not socket.recv_fds, which hands descriptors on to programs this process starts.
        room = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._end.recvmsg(
                MESSAGE_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content)
        self._take(json.loads(data), list(descriptors))

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "ask" in message:
            task = self._loop.create_task(self._reply(message, descriptors))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._asked.get(message["id"])
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(_error(*message["error"]))
        else:
            future.set_result(message["answer"])

    async def _reply(self, message: dict[str, Any], descriptors: list[int]) -> None:
        reply: dict[str, Any] = {"id": message["id"]}
        try:
            reply["answer"] = await self._answer(message["ask"], message["body"], descriptors)
        except Exception as error:
            reply["error"] = [type(error).__name__, str(error)]
        finally:
            _close_all(descriptors)
        if self.closed.is_set():
            return
        try:
            self._send(reply, [])
        except LimitError as error:
            # Else who asked would wait for ever.
            self._send({"id": message["id"], "error": ["LimitError", str(error)]}, [])


def _error(class_name: str, text: str) -> Exception:
    """The error of the other process; of a class that errors.py does not name, an RpcError."""
    error_class = getattr(errors, class_name, None)
    if isinstance(error_class, type) and issubclass(error_class, CubeError):
        try:
            return error_class(text)
        except TypeError:
            pass
    return RpcError(f"{class_name}: {text}")


def _close_all(descriptors: list[int]) -> None:
    for each in descriptors:
        os.close(each)
    descriptors.clear()
