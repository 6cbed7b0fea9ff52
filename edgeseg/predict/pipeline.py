"""Files through a network: the next are read and the last written in threads while it works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar, cast

Item = TypeVar("Item")
Given = TypeVar("Given")
Answer = TypeVar("Answer")

THREADS = 2  # to read, and as many to write


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Given],
    run: Callable[[list[Given]], Sequence[Answer]],
    write: Callable[[Item, Answer], None],
    *,
    failures: tuple[type[Exception], ...],
    ahead: int = 4,
    batch_size: int = 1,
    alike: Callable[[Given], Hashable] = lambda given: None,
) -> Iterator[tuple[Item, Exception | None]]:
    """Each item once it is written, or with what went wrong.

    Args:
        items: Of any number; only `ahead` of them and a batch are in memory before `run`, and as many after it.
        read: What `run` takes, in a thread.
        run: In the calling thread, a batch at a time, in order. Where it fails, its items run one by one.
        write: In a thread. What it raises ends everything.
        failures: Errors of `read` and `run` that concern the one item.
        batch_size: Of successive items that are alike.
        alike: What such have in common.
    """

    def kind(pair: tuple[Item, Given | Exception]) -> Hashable:
        return pair if isinstance(pair[1], Exception) else alike(pair[1])

    with ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
        writing: deque[tuple[Item, Future[None]]] = deque()
        for batch in equal_runs(_read(items, read, readers, failures, ahead), kind, batch_size):
            given = [each for _, each in batch if not isinstance(each, Exception)]
            answers = _attempt(run, given, failures) if given else [each for _, each in batch]
            for (item, _), answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    yield item, answer
                else:
                    writing.append((item, writers.submit(write, item, cast(Answer, answer))))
            while len(writing) > ahead:
                item, written = writing.popleft()
                written.result()
                yield item, None
        for item, written in writing:
            written.result()
            yield item, None


def equal_runs(values: Iterable[Given], kind: Callable[[Given], Hashable], limit: int) -> Iterator[list[Given]]:
    """Successive values of one kind together, at most `limit` of them."""
    together: list[Given] = []
    for value in values:
        if together and (len(together) == limit or kind(value) != kind(together[0])):
            yield together
            together = []
        together.append(value)
    if together:
        yield together


def _read(
    items: Iterable[Item],
    read: Callable[[Item], Given],
    readers: ThreadPoolExecutor,
    failures: tuple[type[Exception], ...],
    ahead: int,
) -> Iterator[tuple[Item, Given | Exception]]:
    """Items with what was read of them, or why it was not."""
    rest = iter(items)
    reading = deque((item, readers.submit(read, item)) for item in islice(rest, ahead))
    while reading:
        item, given = reading.popleft()
        reading.extend((each, readers.submit(read, each)) for each in islice(rest, 1))
        try:
            yield item, given.result()
        except failures as error:
            yield item, error


def _attempt(
    run: Callable[[list[Given]], Sequence[Answer]], given: list[Given], failures: tuple[type[Exception], ...]
) -> Sequence[Answer | Exception]:
    try:
        return run(given)
    except failures as error:
        if len(given) == 1:
            return [error]
        return [answer for each in given for answer in _attempt(run, [each], failures)]
