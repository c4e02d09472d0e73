"""Signals wait until what must not be cut short has ended."""

from __future__ import annotations

import os
import signal

import pytest

from examples.criteo_ctr import interrupts


def test_a_signal_waits_until_a_held_block_ends() -> None:
    previous = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    interrupts.install()
    reached = []

    def start() -> None:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            with interrupts.held():
                reached.append("inner")
            reached.append("outer")
        reached.append("after")

    try:
        with pytest.raises(interrupts.Interrupted, match="SIGTERM") as caught:
            start()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    assert reached == ["inner", "outer"]
    assert caught.value.exit_code == 128 + signal.SIGTERM
