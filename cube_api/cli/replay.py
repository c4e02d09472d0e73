"""Seeks the keys of a file, as the original's `cube-cli` does."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cube_api._client import CubeClient
from cube_api._result import SeekBytesResult
from cube_api.cli.tally import Figures, Tally, figures_of
from cube_api.cli.threads import run_together
from cube_core.conf.cube_conf import DictConf
from cube_core.errors import CubeError


@dataclass(frozen=True)
class Replay:
    """Every thread seeks all of `keys`, `batch` at a time.

    Attributes:
        keys: uint64[n].
        print_rows: the first thread writes the rows to stdout.
    """

    conf: DictConf
    keys: NDArray[np.uint64]
    batch: int
    thread_num: int
    print_rows: bool

    def run(self) -> tuple[list[Figures], Figures]:
        """Figures of each thread, and of all together."""
        with CubeClient({self.conf.dict_name: self.conf}) as client:

            def work(number: int, tally: Tally, _: float) -> None:
                self._seek_all(client, tally, print_rows=self.print_rows and number == 0)

            tallies, elapsed_s = run_together(self.thread_num, lambda: None, work)
        return [figures_of([tally], elapsed_s) for tally in tallies], figures_of(tallies, elapsed_s)

    def _seek_all(self, client: CubeClient, tally: Tally, *, print_rows: bool) -> None:
        for begin in range(0, len(self.keys), self.batch):
            keys = self.keys[begin : begin + self.batch]
            begin_s = time.perf_counter()
            try:
                result = client.seek_bytes(self.conf.dict_name, keys)
            except CubeError as error:
                tally.fail(error)
                continue
            tally.add(result, time.perf_counter() - begin_s)
            if print_rows:
                sys.stdout.write(rows_text(keys, result))


def rows_text(keys: NDArray[np.uint64], result: SeekBytesResult) -> str:
    """A line a key in the original's form, `key:<key> value:<value in hexadecimal>`; a key that is
    missing has no value."""
    lines = [
        f"key:{key} value:{result.value(i).tobytes().hex().upper()}\n"
        for i, key in enumerate(keys.tolist())
    ]
    return "".join(lines)


def original_lines(threads: list[Figures], together: Figures) -> list[str]:
    """The figures that the original prints, in its words; microseconds."""
    lines = [
        f"thread {number} seek cost avg = {each.mean_us:.0f} max = {each.max_us:.0f}"
        f" min = {each.min_us:.0f}"
        for number, each in enumerate(threads)
    ]
    means_us = [each.mean_us for each in threads]
    lines.append(
        f"{len(threads)} thread seek cost avg = {sum(means_us) / len(means_us):.0f}"
        f" max = {max(means_us):.0f} min = {min(means_us):.0f}"
    )
    lines.append(f"total_request = {together.requests} speed = {together.qps:.0f} query per second")
    return lines
