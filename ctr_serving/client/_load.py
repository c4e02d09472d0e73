"""Batches of rows asked for by several threads at once, as the original's client does it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ctr_serving.client._answer import Answer
from ctr_serving.client._client import CtrClient
from ctr_serving.criteo import CriteoRows


@dataclass
class Tally:
    """What one thread was answered.

    Attributes:
        latencies_ms: of each request, in their order.
        requests_by_variant: how many each variant answered, by its tag.
        messages: how many answers came with a message.
        first_message: of the first of these.
    """

    latencies_ms: list[float] = field(default_factory=list)
    rows: int = 0
    requests_by_variant: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    first_message: str = ""

    def add(self, answer: Answer, elapsed_s: float) -> None:
        self.latencies_ms.append(elapsed_s * 1000)
        self.rows += len(answer.probabilities)
        self.requests_by_variant[answer.variant] += 1
        self.messages += bool(answer.message)
        self.first_message = self.first_message or answer.message

    def join(self, other: Tally) -> None:
        self.latencies_ms += other.latencies_ms
        self.rows += other.rows
        self.requests_by_variant.update(other.requests_by_variant)
        self.messages += other.messages
        self.first_message = self.first_message or other.first_message


def ask_all(
    client: CtrClient,
    batches: Iterable[CriteoRows],
    *,
    concurrency: int,
    repeat: int,
    variant: str | None,
    on_answer: Callable[[Answer], object],
) -> Tally:
    """Every one of `concurrency` threads asks for all batches, `repeat` times.

    `on_answer` hears the answers to the batches once each, in their order, from one thread. The
    first failure ends all threads. One thread that asks once takes the batches as they come.

    Raises:
        CubeError, ValueError: the first that a thread ran into.
    """
    if concurrency > 1 or repeat > 1:
        batches = list(batches)
    tallies = [Tally() for _ in range(concurrency)]
    errors: list[BaseException] = []
    stopping = threading.Event()

    def work(number: int) -> None:
        for repetition in range(repeat):
            for batch in batches:
                if stopping.is_set():
                    return
                start_s = time.perf_counter()
                answer = client.ask(batch.sparse_ids, batch.dense, variant=variant)
                tallies[number].add(answer, time.perf_counter() - start_s)
                if number == repetition == 0:
                    on_answer(answer)

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)
            stopping.set()

    # Daemons: an interrupt ends the process without waiting for their answers.
    threads = [
        threading.Thread(target=guarded, args=(number,), daemon=True)
        for number in range(1, concurrency)
    ]
    for thread in threads:
        thread.start()
    guarded(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    total = Tally()
    for tally in tallies:
        total.join(tally)
    return total
