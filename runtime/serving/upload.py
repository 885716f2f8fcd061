"""A sound in memory that a decoder can open like a file."""

import os
import tempfile
from typing import IO


class Upload:
    """A file without a place on the disk: it is gone when it is closed, and when this process ends.

    Where the system has no such files, it is a temporary file of this process.
    """

    def __init__(self) -> None:
        self.file, self.path = _opened()

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _opened() -> tuple[IO[bytes], bytes]:
    """The file, and the path by which another process of the same user opens it."""
    if not os.path.isdir("/proc/self/fd") or not hasattr(os, "memfd_create"):
        file = tempfile.NamedTemporaryFile(prefix="rrtn-")  # noqa: SIM115  # closed by Upload
        return file, os.fsencode(file.name)
    descriptor = os.memfd_create("rrtn")
    return open(descriptor, "w+b"), b"/proc/%d/fd/%d" % (os.getpid(), descriptor)
