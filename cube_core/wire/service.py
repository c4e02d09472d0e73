"""Services behind every wire: one handler a method, bytes in and bytes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory

from cube_core.access import Asker
from cube_core.errors import RpcTimeoutError
from cube_core.wire.faults import Code, MethodNotFoundError

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message
    from typing_extensions import Buffer

_INLINE_PAYLOAD_BYTES_MAX = 2048


@dataclass
class RpcContext:
    """What a handler knows of its request besides the payload.

    Attributes:
        peer: address of the caller, "host:port".
        log_id: the caller's number for the request in its own logs; 0 when it set none.
        deadline_s: `time.monotonic()` after which nobody waits for the answer; None for ever.
        token: that came with the request, or on baidu_std with an earlier one of its connection;
            "" for none.
        attachment: bytes that came beside the payload (baidu_std only).
        response_attachment: bytes to send beside the answer (baidu_std only); the handler sets it.
        correlation_id: number of the request on its connection (baidu_std only).
    """

    peer: str
    log_id: int = 0
    deadline_s: float | None = None
    token: str = ""
    attachment: memoryview | bytes = b""
    response_attachment: bytes = b""
    correlation_id: int = 0

    def request_id(self) -> str:
        """What the lines of a baidu_std request are found by."""
        return prpc_request_id(self.log_id, self.peer, self.correlation_id)

    @property
    def asker(self) -> Asker:
        """Who asks."""
        return Asker(self.peer, self.token)

    def check_deadline(self) -> None:
        """Raises RpcTimeoutError when nobody waits any more, so that no work is spent on it."""
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            raise RpcTimeoutError("the caller's timeout passed before the work began")


def prpc_request_id(log_id: int, peer: str, correlation_id: int) -> str:
    """The caller's `log_id`; where it set none, its address and the number on the connection."""
    return str(log_id) if log_id else f"{peer}#{correlation_id}"


Handler = Callable[["memoryview | bytes", RpcContext], Awaitable[bytes]]
Kernel = Callable[["Buffer"], bytes]


class Method:
    """One method of a service.

    Attributes:
        handler: answers on the event loop, whatever the wire.
        kernel: answers in any thread, without the loop; None when the method has none.
        input_class, output_class: message classes, for the wires that speak JSON.
    """

    def __init__(self, descriptor: MethodDescriptor, handler: Handler, kernel: Kernel | None):
        self.name: str = descriptor.name
        self.handler = handler
        self.kernel = kernel
        self.input_class: type[Message] = message_factory.GetMessageClass(descriptor.input_type)
        self.output_class: type[Message] = message_factory.GetMessageClass(descriptor.output_type)


class Service:
    """A protobuf service and who answers its methods.

    Args:
        descriptor: from the generated module, `xxx_pb2.DESCRIPTOR.services_by_name[...]`.
        handlers: by method name; run on the event loop and must not hold it for over 1 ms.
        kernels: by method name; thread-safe functions from request bytes to response bytes. Small
            requests are answered on the loop, larger ones in a thread.

    Raises:
        ValueError: a method has no handler or two, or a name is no method.
    """

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        handlers: Mapping[str, Handler] | None = None,
        *,
        kernels: Mapping[str, Kernel] | None = None,
    ) -> None:
        handlers, kernels = dict(handlers or {}), dict(kernels or {})
        names = [*handlers, *kernels]
        if sorted(names) != sorted(method.name for method in descriptor.methods):
            raise ValueError(f"{descriptor.full_name}: handlers {names} are not its methods")
        self.descriptor = descriptor
        self.name: str = descriptor.name
        self.full_name: str = descriptor.full_name
        self.methods: dict[str, Method] = {}
        for method in descriptor.methods:
            kernel = kernels.get(method.name)
            handler = handlers[method.name] if kernel is None else _handler_of(kernel)
            self.methods[method.name] = Method(method, handler, kernel)


class ServiceTable:
    """Methods by service (full or short name) and method name."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.services = tuple(services)
        self._methods: dict[tuple[str, str], Method] = {}
        for service in self.services:
            for method in service.methods.values():
                self._methods[service.full_name, method.name] = method
                self._methods[service.name, method.name] = method

    def find(self, service: str, method: str) -> Method:
        """Looks a method up.

        Raises:
            MethodNotFoundError: with brpc's codes and words.
        """
        found = self._methods.get((service, method))
        if found is not None:
            return found
        if not service:
            raise MethodNotFoundError("Fail to find service=", Code.NO_SERVICE)
        raise MethodNotFoundError(f"Fail to find method={service}/{method}", Code.NO_METHOD)


def _handler_of(kernel: Kernel) -> Handler:
    async def handler(payload: memoryview | bytes, context: RpcContext) -> bytes:
        if len(payload) <= _INLINE_PAYLOAD_BYTES_MAX:
            return kernel(payload)
        return await asyncio.to_thread(_run_in_time, kernel, payload, context)

    return handler


def _run_in_time(kernel: Kernel, payload: Any, context: RpcContext) -> bytes:
    context.check_deadline()
    return kernel(payload)
