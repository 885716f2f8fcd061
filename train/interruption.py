"""One run, one trainer; and a trainer that is told to stop saves first."""

import contextlib
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ..runtime.errors import ConfigError


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Holds `run`/run.lock. Raises ConfigError where another process trains there.

    The system frees the lock with its process, however that ends, so none is ever stale.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / "run.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(
                f"{run} | {holder} trains there | one trainer a run | wait for it, or choose another --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


class Interruption:
    """Catches Ctrl-C and SIGTERM while it is open: `signal` is then set, and the loop stops where it can go on later.

    A second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self._before = {number: signal.signal(number, self._caught) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
