"""Progress bars on stderr; nothing when stderr is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from cube_builder.local_engine import OnProgress, Progress


@contextlib.contextmanager
def build_progress() -> Iterator[OnProgress]:
    """Bars for what is read and what is written, with the records read a second."""
    with _bar("{task.fields[records]:,} records, {task.fields[rate]:,.0f}/s") as bar:
        read = bar.add_task("read", total=None, records=0, rate=0.0)
        write = bar.add_task("write", total=None, records=0, rate=0.0, visible=False)

        def show(progress: Progress) -> None:
            task = read if progress.stage == "read" else write
            elapsed_s = bar.tasks[read].elapsed or 0.0
            rate = progress.record_count / elapsed_s if elapsed_s else 0.0
            bar.update(
                task,
                completed=progress.done,
                total=progress.total,
                visible=True,
                records=progress.record_count,
                rate=rate,
            )

        yield show


@contextlib.contextmanager
def row_progress(row_count: int) -> Iterator[Callable[[int], None]]:
    """A bar over the rows written."""
    with _bar("rows") as bar:
        task = bar.add_task("dump", total=row_count)
        yield lambda done: bar.update(task, completed=done)


def _bar(text: str) -> Bar:
    console = Console(stderr=True)
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(text),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
