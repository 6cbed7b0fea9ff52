"""Runs a network over files while threads read the next files and write the last results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar, cast

Item = TypeVar("Item")
Given = TypeVar("Given")
Answer = TypeVar("Answer")

THREADS = 2  # that read, and as many that write


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Given],
    run: Callable[[list[Given]], Sequence[Answer]],
    write: Callable[[Item, Answer], None],
    *,
    failures: tuple[type[Exception], ...],
    unwritable: tuple[type[Exception], ...] = (),
    ahead: int = 4,
    batch_size: int = 1,
    alike: Callable[[Given], Hashable] = lambda given: None,
) -> Iterator[tuple[Item, Exception | None]]:
    """Yields each item with None after its result is written, or with the error that prevented it.

    Args:
        items: Any number of items.
        read: Called in a thread with an item; returns what `run` takes.
        run: Called in the calling thread with a batch, in the order of the items; returns one result per item. If it
            fails, the items of the batch run one by one.
        write: Called in a thread with an item and its result.
        failures: Types of errors of `read` and `run` that concern one item only; other types end the iteration.
        unwritable: Types of errors of `write` that concern one item only; others, such as a full disk, end the
            iteration.
        ahead: Number of items that are read ahead, and of results that wait to be written; with one batch, this bounds
            the memory.
        batch_size: Largest number of items in a batch.
        alike: Returns a key of what `read` returned; only successive items with equal keys share a batch.
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
                yield item, _error_of(written, unwritable)
        for item, written in writing:
            yield item, _error_of(written, unwritable)


def equal_runs(values: Iterable[Given], kind: Callable[[Given], Hashable], limit: int) -> Iterator[list[Given]]:
    """Yields lists of successive values of one kind, each with at most `limit` values."""
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
    """Yields items with what was read of them, or with the error of reading them."""
    rest = iter(items)
    reading = deque((item, readers.submit(read, item)) for item in islice(rest, ahead))
    while reading:
        item, given = reading.popleft()
        reading.extend((each, readers.submit(read, each)) for each in islice(rest, 1))
        try:
            yield item, given.result()
        except failures as error:
            yield item, error


def _error_of(written: Future[None], unwritable: tuple[type[Exception], ...]) -> Exception | None:
    try:
        return written.result()
    except unwritable as error:
        return error


def _attempt(
    run: Callable[[list[Given]], Sequence[Answer]], given: list[Given], failures: tuple[type[Exception], ...]
) -> Sequence[Answer | Exception]:
    try:
        return run(given)
    except failures as error:
        if len(given) == 1:
            return [error]
        return [answer for each in given for answer in _attempt(run, [each], failures)]
