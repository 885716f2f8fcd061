"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere.

There is one bar at a time. Work inside other work has its own bar meanwhile, and a line that is printed
with `print_above` stands above it. Nothing is silent for longer than two seconds: a thread draws.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

from .system.host import after_fork_in_child
from .text import printable

_REFRESH_SECONDS: Final = 0.2  # of the bar
_FIRST_LINE_SECONDS: Final = 1.5  # shorter work prints nothing where there is no terminal
_LINE_SECONDS: Final = 10.0  # between plain lines
_LONGEST: Final = 1e7  # s; what would take longer is not known
_BAR: Final = (8, 40)  # the least and the greatest width
_GAP: Final = "  "
_WIPE: Final = "\r\x1b[2K"

_open: "list[Progress]" = []  # from the outer work to the inner one; the last one is shown


class _Stderr:
    """When the last line was printed, and when the last work ended, where there is no terminal."""

    lock = threading.RLock()  # what draws holds it
    printed = ended = -math.inf


class Bar(Protocol):
    """Takes reports of progress: a Progress, or a stand-in in tests."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds `count` to what is done."""

    def watch(self, in_work: Callable[[], str]) -> None:
        """Asks `in_work` at each drawing, in another thread, and shows what it says."""


class Progress:
    """`with Progress("decode Train", total, "clips") as bar: bar.advance(n, "a note")`.

    Without a total the time alone is shown. A note names what is in work, or says what was found.
    """

    def __init__(self, label: str, total: int | None = None, unit: str = "") -> None:
        self._label, self._total, self._unit = printable(label), total, unit
        self._done, self._note, self._printed = 0, "", -1
        self._in_work: Callable[[], str] = str
        self._started = time.monotonic()
        self._next_line = -math.inf  # the first one follows soon on the line before, whoever printed that
        self._on_terminal = is_terminal()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Progress":
        if self._total != 0 and is_shown():
            with _Stderr.lock:
                _wipe()
                if not _open and self._started - _Stderr.ended > _FIRST_LINE_SECONDS:
                    _Stderr.printed = self._started
                _open.append(self)
                self._draw()
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        with _Stderr.lock:
            _wipe()
            _open.remove(self)
            _Stderr.ended = time.monotonic()
            if not self._on_terminal and self.seconds > _FIRST_LINE_SECONDS and self._printed < self._done:
                self._print_line()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds `count` to what is done."""
        self.update(self._done + count, note)

    def update(self, done: int, note: str = "") -> None:
        """Sets what is done, and what is in work."""
        self._done, self._note = done, printable(note)

    def watch(self, in_work: Callable[[], str]) -> None:
        """`in_work` is asked at each drawing, in another thread; what it says stands before the note."""
        self._in_work = in_work

    @property
    def seconds(self) -> float:
        """Seconds since the start, by a clock that cannot go backwards."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Units per second so far."""
        return self._done / max(self.seconds, 1e-9)

    def _run(self) -> None:
        while not self._ended.wait(_REFRESH_SECONDS):
            with _Stderr.lock:
                if not self._ended.is_set():
                    self._draw()

    def _draw(self) -> None:
        if _open[-1] is not self:
            return
        if self._on_terminal:
            sys.stderr.write(f"{_WIPE}{self._line(stderr_width() - 1)}")
            sys.stderr.flush()
        elif time.monotonic() > max(self._next_line, _Stderr.printed + _FIRST_LINE_SECONDS):
            self._next_line = time.monotonic() + _LINE_SECONDS
            self._print_line()

    def _line(self, width: int) -> str:
        """The bar's line."""
        count = f"{self._done}/{self._total} {self._unit}" if self._total else ""
        rate = f"{self.rate:.1f}/s" if self._total and self._done else ""
        share = self._done / self._total if self._total else None
        return bar_line(
            self._label, self._notes(), share, count=count, rate=rate, times=self._times(), width=width
        )

    def _notes(self) -> str:
        return ", ".join(filter(None, (printable(self._in_work()), self._note)))

    def _times(self) -> tuple[str, str]:
        left = (self._total - self._done) / self.rate if self._total and self._done else math.inf
        return times(self.seconds, left)

    def _print_line(self) -> None:
        self._printed, _Stderr.printed = self._done, time.monotonic()
        what = f"{self._done}/{self._total} {self._unit}, {self.rate:.1f}/s, " if self._total else ""
        note = f" | {notes}" if (notes := self._notes()) else ""
        print(f"{self._label}: {what}{', '.join(self._times())}{note}", file=sys.stderr, flush=True)


def bar_line(
    label: str,
    note: str,
    share: float | None,
    *,
    count: str = "",
    rate: str = "",
    times: tuple[str, str],
    width: int,
) -> str:
    """One line with what fits into `width`: what is in work and the times come before bar and rate.

    No part is ever cut. `share` is what is done, in [0, 1]; None if nobody knows.
    """
    elapsed, left = times
    parts = {"label": label, "bar": "", "note": note, "count": count, "rate": rate}
    parts |= {"elapsed": elapsed, "left": left}
    shown, room = {"label"}, width - len(label)
    for name in ("left", "elapsed", "note", "count"):
        if parts[name] and len(parts[name]) + len(_GAP) <= room:
            shown.add(name)
            room -= len(parts[name]) + len(_GAP)
    if rate and len(rate) + 2 * len(_GAP) + _BAR[0] <= room:
        shown.add("rate")
        room -= len(rate) + len(_GAP)
    if share is not None and room >= _BAR[0] + len(_GAP):
        shown.add("bar")
        parts["bar"] = _drawn(share, min(room - len(_GAP), _BAR[1]))
    return _GAP.join(text for name, text in parts.items() if name in shown)


def times(elapsed: float, left: float) -> tuple[str, str]:
    """Two texts; `left` may be infinite: not known yet."""
    return f"elapsed {duration(max(elapsed, 0.0))}", f"left {duration(left) if left < _LONGEST else '?'}"


def duration(seconds: float) -> str:
    """Such as 12 s, 3 min, 2 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def print_above(text: str) -> None:
    """Prints a line on stderr; a bar that is shown stays below it."""
    with _Stderr.lock:
        _wipe()
        _Stderr.printed = time.monotonic()
        print(text, file=sys.stderr, flush=True)
        if _open and _open[-1]._on_terminal:
            _open[-1]._draw()


def is_shown() -> bool:
    """Where several processes share a terminal, only the first shows what it does."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_terminal() -> bool:
    """True if lines on stderr can be overwritten."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def stderr_width() -> int:
    """Columns of the terminal behind stderr."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _wipe() -> None:
    """Clears the line of the bar that is shown."""
    if _open and _open[-1]._on_terminal:
        sys.stderr.write(_WIPE)
        sys.stderr.flush()


def _drawn(share: float, width: int) -> str:
    full, empty = ("━", "─") if _has_lines() else ("#", "-")
    done = round(width * min(max(share, 0.0), 1.0))
    return full * done + empty * (width - done)


def _has_lines() -> bool:
    try:
        "━".encode(sys.stderr.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _in_child() -> None:
    _Stderr.lock = threading.RLock()  # the thread that held it is not there


after_fork_in_child(_in_child)
