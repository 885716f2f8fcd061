"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

from .text import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_QUIET_SECONDS: Final = 2.0  # shorter work prints nothing where there is no terminal
_LINE_SECONDS: Final = 10.0  # between plain lines


class Bar(Protocol):
    """What is told how much is done: a Progress, or something of a test's own."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds `count` to what is done."""


class Progress:
    """`with Progress("decode", total, "clips") as bar: bar.advance(n, "a note")`."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = printable(label), total, unit
        self._done, self._note, self._printed = 0, "", -1
        self._started = time.monotonic()
        self._next_line = self._started + _LINE_SECONDS
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = (
            self._bar.add_task(self._label, total=total, unit=unit, rate="", note="") if self._bar else None
        )

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._printed < self._done and self.seconds > _QUIET_SECONDS:
            self._print_line()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds `count` to what is done."""
        self.update(self._done + count, note)

    def update(self, done: int, note: str = "") -> None:
        """Sets what is done."""
        self._done, self._note = done, printable(note)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, rate=f"{self.rate:.1f}", note=self._note)
        elif time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            self._print_line()

    @property
    def seconds(self) -> float:
        """Seconds since the start, by a clock that cannot go backwards."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Units per second so far."""
        return self._done / max(self.seconds, 1e-9)

    def _print_line(self) -> None:
        self._printed = self._done
        left = (self._total - self._done) / max(self.rate, 1e-9)
        eta = f", {left:.0f} s to go" if 0 < left < 1e7 else ""
        note = f" | {self._note}" if self._note else ""
        done = f"{self._label}: {self._done}/{self._total} {self._unit}"
        print(f"{done}, {self.rate:.1f}/s, {self.seconds:.0f} s{eta}{note}", file=sys.stderr, flush=True)


def _bar() -> "RichProgress":
    from rich.console import Console  # not above: most commands show no bar
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} {task.fields[unit]}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
