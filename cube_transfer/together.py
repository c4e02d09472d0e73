"""Coroutines that live and fail together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def all_together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs them at the same time until all are done; when one fails, or this is cancelled, the
    others are cancelled and waited for, and the first failure is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
