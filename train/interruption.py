"""Ctrl-C and SIGTERM become a flag, so that the training loop can save before it stops."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Catches Ctrl-C and SIGTERM while the block runs, and keeps the signal in `signal`.

    A second signal stops the process at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # other threads cannot set handlers
            self._before = {
                number: signal.signal(number, self._caught) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
