"""Reading ahead and writing behind: everything comes out once, little is in memory, errors keep their place."""

from __future__ import annotations

import threading

import pytest

from edgeseg.predict.pipeline import overlapped


def test_all_items_with_little_in_memory() -> None:
    alive, most, lock = 0, 0, threading.Lock()
    written: list[tuple[int, int]] = []

    def read(item: int) -> int:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return item * 10

    def write(item: int, answer: int) -> None:
        nonlocal alive
        with lock:
            alive -= 1
            written.append((item, answer))

    done = list(overlapped(range(50), read, lambda given: [each + 1 for each in given], write, failures=(), ahead=3))
    assert sorted(done) == [(i, None) for i in range(50)]
    assert sorted(written) == [(i, 10 * i + 1) for i in range(50)]
    assert most <= 2 * (3 + 1)


def test_reading_goes_on_while_the_network_works() -> None:
    second_was_read = threading.Event()

    def read(item: int) -> int:
        if item == 1:
            second_was_read.set()
        return item

    def run(given: list[int]) -> list[bool]:
        return [second_was_read.wait(10)]

    answers: dict[int, bool] = {}
    list(overlapped([0, 1], read, run, answers.__setitem__, failures=()))
    assert answers == {0: True, 1: True}


def test_errors_of_one_item_and_of_all() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    def full(item: int, answer: int) -> None:
        raise OSError("disk full")

    done = dict(overlapped(range(4), read, list, lambda *_: None, failures=(ValueError,)))
    assert [str(done[i]) for i in range(4)] == ["None", "None", "two", "None"]
    with pytest.raises(OSError, match="disk full"):
        list(overlapped(range(4), abs, list, full, failures=(ValueError, OSError)))
    with pytest.raises(ValueError, match="two"):
        list(overlapped(range(4), read, list, lambda *_: None, failures=(OSError,)))


def test_batches_of_what_is_alike() -> None:
    """Only successive items; one that fails takes no other with it."""
    runs: list[list[str]] = []

    def run(given: list[str]) -> list[str]:
        runs.append(given)
        if "bad" in given:
            raise ValueError("bad")
        return [each.upper() for each in given]

    written: dict[int, str] = {}
    words = ["a", "b", "c", "dd", "bad", "eee", "f"]
    steps = overlapped(
        range(7), words.__getitem__, run, written.__setitem__, failures=(ValueError,), batch_size=2, alike=len
    )
    failed = {item: str(error) for item, error in steps if error is not None}
    assert runs == [["a", "b"], ["c"], ["dd"], ["bad", "eee"], ["bad"], ["eee"], ["f"]]
    assert failed == {4: "bad"}
    assert written == {0: "A", 1: "B", 2: "C", 3: "DD", 5: "EEE", 6: "F"}
