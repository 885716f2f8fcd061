"""Places where a test makes the process fail, to see that nothing is lost.

RRTN_FAILPOINT=name:action[:nth] does `action` when the process passes a place of that name for the nth
time (default 1), or each time (nth = all). `name` may have wildcards: write.*:sigkill:17 kills at the
17th place of any write. Each process counts for itself.

Actions: sigkill, sigsegv, sigterm, sigint, sighup, enospc (the disk is full), eio (the storage fails),
memory, raise, sleep (an hour).
"""

import errno
import fnmatch
import os
import signal
import threading
import time
from typing import Final

_lock: Final = threading.Lock()
_passed = 0


def failpoint(name: str, *, file: "str | bytes | os.PathLike[str] | None" = None) -> None:
    """A place that may fail; does nothing unless the environment asks for a failure here.

    With `file`, the name of the place is `name`, a dot and the file's name.
    """
    if chosen := os.environ.get("RRTN_FAILPOINT"):
        pattern, action, nth = (*chosen.split(":"), "1")[:3]
        if file is not None:
            name = f"{name}.{os.path.basename(os.fsdecode(file))}"
        if fnmatch.fnmatchcase(name, pattern) and (nth == "all" or _count() == int(nth)):
            _fail(name, action)


def _count() -> int:
    global _passed  # noqa: PLW0603  # one count for the process
    with _lock:
        _passed += 1
        return _passed


def _fail(name: str, action: str) -> None:
    match action:
        case "sigkill" | "sigsegv" | "sigterm" | "sigint" | "sighup":
            os.kill(os.getpid(), signal.Signals[action.upper()])
        case "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        case "memory":
            raise MemoryError
        case "sleep":
            time.sleep(3600)
        case _:
            raise RuntimeError(f"failpoint {name}")
