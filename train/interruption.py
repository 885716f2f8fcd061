"""Ctrl-C, SIGTERM and the end of the terminal become a flag, so that the training loop can save and stop."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ..runtime.system.host import HANG_UP


class Interruption:
    """Catches Ctrl-C, SIGTERM and SIGHUP while the block runs, and keeps the signal in `signal`.

    SIGHUP is left alone where it is ignored, as under nohup. A second Ctrl-C or SIGTERM stops the process at
    once. A terminal may say twice that it ends.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # other threads cannot set handlers
            caught = [signal.SIGINT, signal.SIGTERM]
            if HANG_UP and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
                caught.append(HANG_UP)
            self._before = {number: signal.signal(number, self._caught) for number in caught}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == HANG_UP:
            return
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
