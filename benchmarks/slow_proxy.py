"""A TCP proxy that passes answers on late: `python -m benchmarks.slow_proxy PORT DELAY_MS`."""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def _serve(target_port: int, delay_s: float) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(
            _pass_on(reader, to_server, 0.0), _pass_on(from_server, writer, delay_s)
        )

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(f"slow-proxy ready: port={server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float
) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 20):
            if delay_s:
                loop.call_later(delay_s, target.write, data)
            else:
                target.write(data)
    loop.call_later(delay_s, target.close)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
