"""The standard streams of the command: a closed one neither stops the work nor ends in a traceback."""

import contextlib
import io
import os
import sys
from typing import Any

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def hold_streams() -> None:
    """Called first. Otherwise the next file that is opened would get the number of a closed stream.

    A closed stdout is a pipe that nobody reads. What cannot be written to stderr is dropped: the lines for
    the person are not worth the table.
    """
    for number in (_STDIN, _STDOUT, _STDERR):
        if not _is_open(number):
            _fill(number)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    with contextlib.suppress(OSError, AttributeError):  # a stream of a program's own may have no descriptor
        descriptor = _STDERR if sys.stderr is None else sys.stderr.fileno()
        sys.stderr = _lossy(sys.stderr, descriptor)


def _is_open(number: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


def _fill(number: int) -> None:
    """Opens something in the place of a closed stream: the lowest free number is this one."""
    if number == _STDOUT:
        reader, writer = os.pipe()  # one of them is `number`, which becomes the writer
        os.dup2(writer, number)
        for end in {reader, writer} - {number}:
            os.close(end)
    else:
        os.open(os.devnull, os.O_RDWR)


class _LossyText(io.TextIOWrapper):
    """Drops what the descriptor does not take.

    The errors are caught here and not in a raw stream of our own: a signal whose handler raises between
    `os.write` and the return of a raw stream in Python makes the buffer write the same line again.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def _lossy(stream: Any, descriptor: int) -> io.TextIOWrapper:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw = open(descriptor, "wb", buffering=0, closefd=False)  # noqa: SIM115  # a console's own on Windows
    writer = io.BufferedWriter(raw)
    return _LossyText(writer, encoding=encoding, errors="backslashreplace", line_buffering=True)
