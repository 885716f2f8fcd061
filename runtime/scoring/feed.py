"""Files that other threads give to a scorer while it scores those before them."""

import contextlib
import math
import socket
import threading
from collections import deque
from itertools import count

from ..audio.sources import AudioSource


class Feed:
    """A queue of files, each with its ticket. It can be waited for together with the pipes of decoders.

    Any thread may put; one thread takes.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, AudioSource]] = deque()
        self._tickets, self._lock = count(), threading.Lock()
        # The bell can be read once something was put.
        self.bell, self._button = socket.socketpair()
        self.bell.setblocking(False)
        self._button.setblocking(False)
        self._is_closed = False
        self.look_within = math.inf  # s after which the taker wants to look, though nothing came

    @property
    def is_over(self) -> bool:
        """True once it was closed and all files were taken."""
        return self._is_closed and not self._waiting

    def put(self, source: AudioSource) -> int:
        """-> the ticket of the file."""
        with self._lock:
            ticket = next(self._tickets)
            self._waiting.append((ticket, source))
        self.wake()
        return ticket

    def take(self) -> tuple[int, AudioSource] | None:
        """The next file; None if there is none now."""
        return self._waiting.popleft() if self._waiting else None

    def wake(self) -> None:
        """Lets the taker look."""
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._button.send(b"x")

    def was_heard(self) -> None:
        """Forgets all that woke the taker so far."""
        with contextlib.suppress(BlockingIOError):
            while self.bell.recv(4096):
                pass

    def close(self) -> None:
        """Says that no more files come. Those that were put are still taken."""
        self._is_closed = True
        self.wake()

    def release(self) -> None:
        """Closes the descriptors, after the last use."""
        self.bell.close()
        self._button.close()
