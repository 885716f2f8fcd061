"""The standard streams, which C libraries in this process use, too: silenced, cut short, never missing."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import ClassVar, Final

from .host import after_fork_in_child, flush_c_stdout

_STDOUT: Final = 1
_STDERR: Final = 2


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Lets nothing in this process write on stdout, where a table or JSON may go.

    C libraries print there: libsndfile for some damaged files, a runtime of models when it is loaded.
    Decoders have no stdout.
    """
    with _leading_nowhere(_STDOUT):
        try:
            yield
        finally:
            flush_c_stdout()


@contextlib.contextmanager
def quiet_codecs() -> Iterator[None]:
    """For files that are decoded in this process: nothing writes on stdout, and C libraries not on stderr.

    libmpg123 has notes on each frame that it does not know. Where sys.stderr is the descriptor 2, as in a
    program that is not ours, they come through: they could not be told from what Python prints.
    """
    is_apart = stderr_descriptor() != _STDERR
    with quiet_stdout(), _leading_nowhere(_STDERR) if is_apart else contextlib.nullcontext():
        yield


def stderr_descriptor() -> int:
    """Where sys.stderr writes; 2 where it does not say."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # none, closed, or a program's own
        return sys.stderr.fileno()
    return _STDERR


class _Nowhere:
    """The descriptors that lead nowhere -> where they led, and how many blocks want it so."""

    lock = threading.Lock()
    kept: ClassVar[dict[int, tuple[int, int]]] = {}


@contextlib.contextmanager
def _leading_nowhere(descriptor: int) -> Iterator[None]:
    """What is written to the descriptor is dropped. One that is closed stays so. Threads may overlap."""
    with _Nowhere.lock:
        is_open_now = _lead_nowhere(descriptor)
    try:
        yield
    finally:
        if is_open_now:
            with _Nowhere.lock:
                _lead_back(descriptor)


def _lead_nowhere(descriptor: int) -> bool:
    if descriptor in _Nowhere.kept:
        kept, wanted = _Nowhere.kept[descriptor]
    elif is_open(descriptor):
        kept, wanted = os.dup(descriptor), 0
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    else:
        return False
    _Nowhere.kept[descriptor] = kept, wanted + 1
    return True


def _lead_back(descriptor: int) -> None:
    kept, wanted = _Nowhere.kept.pop(descriptor, (-1, 0))
    if wanted > 1:
        _Nowhere.kept[descriptor] = kept, wanted - 1
    elif wanted:
        os.dup2(kept, descriptor)
        os.close(kept)


def _lead_back_in_child() -> None:
    """The threads that wanted it are not there, and one of them may have held the lock."""
    _Nowhere.lock = threading.Lock()
    for descriptor, (kept, _) in [*_Nowhere.kept.items()]:
        _Nowhere.kept[descriptor] = kept, 1
        _lead_back(descriptor)


def shorten_stderr(most: int) -> None:
    """Empties stderr where it is a file of more than so many bytes that `start_process` has given us."""
    if os.fstat(_STDERR).st_size > most:
        os.lseek(_STDERR, 0, os.SEEK_SET)
        os.ftruncate(_STDERR, 0)


def fill_standard_descriptors() -> None:
    """Opens the null device in place of what is closed of stdin, stdout and stderr.

    Otherwise the next file that is opened would be one of them, and could not be handed to another process:
    there these numbers are its own streams'.
    """
    for number in range(3):
        if not is_open(number):
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


def is_open(descriptor: int) -> bool:
    """Whether the descriptor is of something that is open."""
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


after_fork_in_child(_lead_back_in_child)
