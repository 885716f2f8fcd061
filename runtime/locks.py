"""One process at a time, by a lock that the system frees with its process, however that ends: none
is ever stale.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigError


@contextlib.contextmanager
def locked(file: Path, *, does: str) -> Iterator[None]:
    """Holds `file`, whose folder is what is worked on.

    Raises ConfigError where another process `does` the same there.
    """
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise ConfigError(
                f"{file.parent} | {holder} {does} there | one at a time | wait for it, or choose another --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
