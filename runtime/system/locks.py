"""One process at a time, by a lock that the system frees with its process, however that ends: none
is ever stale.

`filelock` takes the locks, on Unix and on Windows. What lies in a lock's place and is no lock of ours, such
as a link, is refused and left as it is. On a file system without locks the work goes on without one.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import ConfigError

_WITHOUT_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_HOLDER_AT: Final = 1  # Windows locks the first byte of the file, against readers too
_HOLDER_BYTES: Final = 400
_HOLDER: Final = b"process "  # begins what a lock of ours holds


@contextlib.contextmanager
def locked(file: Path, *, does: str) -> Iterator[None]:
    """Holds `file`, whose folder is what is worked on.

    Raises ConfigError where another process `does` the same there.
    """
    # The file stays when the lock is released: it is part of a run's folder.
    write = partial(_write_holder, file)
    lock = FileLock(file, fallback_to_soft=False, preserve_lock_file=True, on_acquired=write)
    try:
        _acquire(lock, blocking=False)
    except Timeout:
        raise ConfigError(
            str(file.parent),
            f"{_holder(file)} {does} there",
            wanted="one process at a time",
            fix="wait for it, or choose another --out",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """Holds `file` as soon as no other process does, and removes the file at the end."""
    lock = FileLock(file, fallback_to_soft=False, on_acquired=partial(_check_own, file))
    _acquire(lock, blocking=True)
    try:
        yield
    finally:
        # The lock is still held here: a process that waits for it then sees that the file is gone,
        # and makes a new one. Windows removes no open file; there the release removes it.
        with contextlib.suppress(OSError):
            file.unlink()
        lock.release()


def is_held(file: Path) -> bool:
    """Whether a living process holds `file`.

    Also true where nobody can know: on a file system without locks.
    """
    try:
        with FileLock(file, blocking=False, fallback_to_soft=False):
            return False
    except OSError:  # also filelock's Timeout
        return True


def _acquire(lock: BaseFileLock, *, blocking: bool) -> None:
    """Raises Timeout where another process holds the lock, ConfigError where its file is a link."""
    try:
        lock.acquire(blocking=blocking)
    except OSError as error:  # Timeout is one, without an errno
        if Path(lock.lock_file).is_symlink():
            raise _not_ours(lock.lock_file, "a link") from error
        if error.errno not in _WITHOUT_LOCKS:
            raise


def _write_holder(file: Path, descriptor: int) -> None:
    _check_own(file, descriptor)
    holder = " " * _HOLDER_AT + f"process {os.getpid()} on {socket.gethostname()}"
    os.ftruncate(descriptor, os.write(descriptor, holder.encode()))


def _check_own(file: Path, descriptor: int) -> None:
    """Raises ConfigError for a file that no lock of ours can be: it may be anyone's."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _not_ours(file, "no regular file")
    if status.st_nlink > 1:
        raise _not_ours(file, "a link")
    content = os.read(descriptor, _HOLDER_BYTES)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if content.strip() and not content.lstrip().startswith(_HOLDER):
        raise _not_ours(file, "holds something else")


def _not_ours(file: str | os.PathLike[str], came: str) -> ConfigError:
    what = "the link" if came == "a link" else "it"
    return ConfigError(os.fspath(file), came, wanted="a file of its own", fix=f"remove {what}")


def _holder(file: Path) -> str:
    with contextlib.suppress(OSError), file.open("rb", buffering=0) as content:
        content.seek(_HOLDER_AT)
        return content.read(_HOLDER_BYTES).decode(errors="replace").strip() or "another process"
    return "another process"
