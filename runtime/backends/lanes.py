"""What a loaded model needs for each batch that runs, where two batches cannot share it."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

LaneState = TypeVar("LaneState")


class Lanes(Generic[LaneState]):
    """States that run one batch at a time each. They are made as they are needed, and the last one first used
    again, so that a caller who runs one batch after the other has a single one.
    """

    def __init__(self, make: Callable[[], LaneState], most: int) -> None:
        """`most` states at once: a thread that comes when all of them run waits."""
        self._make, self._free = make, deque[LaneState]()
        self._room = threading.Semaphore(most)

    @contextlib.contextmanager
    def one(self) -> Iterator[LaneState]:
        """A state for this thread alone. One in which something has failed is not used again."""
        with self._room:
            try:
                state = self._free.pop()
            except IndexError:
                state = self._make()
            yield state
            self._free.append(state)
