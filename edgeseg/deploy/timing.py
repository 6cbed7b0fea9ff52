"""Times functions in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def alternating(
    functions: Mapping[str, Callable[[], object]], *, rounds: int = 15, warm_up: int = 3
) -> dict[str, list[float]]:
    """Calls every function once per round. Returns the sorted seconds of each function in `rounds` rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warm_up + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: sorted(values) for name, values in seconds.items()}
