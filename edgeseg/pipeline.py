"""Files through a network: the next are read and the last written in threads while it works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Given = TypeVar("Given")
Answer = TypeVar("Answer")

THREADS = 2  # to read, and as many to write


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Given],
    run: Callable[[Given], Answer],
    write: Callable[[Item, Answer], None],
    *,
    failures: tuple[type[Exception], ...],
    ahead: int = 4,
) -> Iterator[tuple[Item, Exception | None]]:
    """Each item once it is written, or with what went wrong.

    Args:
        items: Of any number; only `ahead` of them are in memory before `run`, and as many after it.
        read: What `run` takes, in a thread.
        run: In the calling thread, one item at a time, in order.
        write: In a thread. What it raises ends everything.
        failures: Errors of `read` and `run` that concern the one item.
    """
    with ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
        rest = iter(items)
        reading = deque((item, readers.submit(read, item)) for item in islice(rest, ahead))
        writing: deque[tuple[Item, Future[None]]] = deque()
        while reading:
            item, given = reading.popleft()
            reading.extend((each, readers.submit(read, each)) for each in islice(rest, 1))
            try:
                answer = run(given.result())
            except failures as error:
                yield item, error
                continue
            writing.append((item, writers.submit(write, item, answer)))
            if len(writing) > ahead:
                item, written = writing.popleft()
                written.result()
                yield item, None
        for item, written in writing:
            written.result()
            yield item, None
