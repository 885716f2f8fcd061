"""The standard streams of the command: a closed one neither stops the work nor ends in a traceback."""

import contextlib
import faulthandler
import io
import os
import sys
from typing import Any

from ..runtime.system.descriptors import fill_standard_descriptors, is_open

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def hold_streams() -> None:
    """Called first. Otherwise the next file that is opened would get the number of a closed stream.

    A closed stdout is a pipe that nobody reads. What cannot be written to stderr is dropped: the lines for
    the person are not worth the table.
    """
    has_stdout = is_open(_STDOUT)
    fill_standard_descriptors()
    if not has_stdout:
        _break_stdout()
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    with contextlib.suppress(OSError, AttributeError):  # a stream of a program's own may have no descriptor
        descriptor = _STDERR if sys.stderr is None else sys.stderr.fileno()
        if descriptor == _STDERR:  # C libraries have that for themselves: `quiet_codecs` silences them
            descriptor = os.dup(_STDERR)
        sys.stderr = _lossy(sys.stderr, descriptor)
        faulthandler.enable(descriptor)  # a crash has a word, also where those libraries are silent


def _break_stdout() -> None:
    """Makes stdout a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.dup2(writer, _STDOUT)
    os.close(reader)
    os.close(writer)


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
