"""What differs between Linux, macOS and Windows. No other module asks on which of them it runs.

Where a system lacks something, the function here does nothing, or the nearest thing that the system has.
docs/platforms.md says what that means for a user.
"""

import contextlib
import errno
import importlib
import mmap
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

if TYPE_CHECKING:
    import socket
    import subprocess
    from multiprocessing.connection import Connection

resource: Any = None  # Windows has no such module
with contextlib.suppress(ImportError):
    resource = importlib.import_module("resource")

MemoryKind = Literal["space", "data"]

MOST_PROCESSES: Final = 60 if sys.platform == "win32" else 10_000  # Windows waits for 63 objects at once
NO_LIMIT: Final = -1
HANG_UP: Final = getattr(signal, "SIGHUP", None)  # Windows has no such signal
SIGKILL: Final = 9  # Windows has no such signal; its kill ends a process as surely
# Names under which open descriptors can be opened again: a second opening has a place of its own in the file.
# The descriptors in macOS' /dev/fd share one.
DESCRIPTORS: Final = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else None

# A pipe without a writer must not be waited for, no terminal adopted, no line end changed.
_TO_READ: Final = os.O_RDONLY | sum(
    getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY", "O_NOINHERIT")
)
_TO_SYNC: Final = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY
# s to wait until a program lets go of a file: on Windows a virus scanner or an indexer may look at it.
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if sys.platform == "win32" else ()
_STATM: Final = "/proc/self/statm"
_STATM_FIELDS: Final = {"space": 0, "data": 5}
_LOOK_EVERY: Final = 1.0  # s


# Sockets


def claim_port(bound: "socket.socket") -> None:
    """Before a socket is bound: its port is free again as soon as a server ends, and is of one server alone.

    On Windows the option that frees it would let two servers share it.
    """
    import socket  # not for `rrtn --help`

    if sys.platform == "win32":
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


# Files


def open_to_read(path: "str | bytes | os.PathLike[str]") -> int:
    """A descriptor. Raises OSError; IsADirectoryError for a folder on Windows, which opens none."""
    try:
        return os.open(path, _TO_READ)
    except PermissionError:
        if sys.platform == "win32" and os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)) from None
        raise


def inode_of(status: os.stat_result) -> int:
    """In 64 bits: some file systems of Windows have 128, of which the lower ones tell files apart."""
    return status.st_ino & (2**64 - 1)


def pread(descriptor: int, count: int, offset: int) -> bytes:
    """Reads at a place. One thread alone may read so: Windows moves the descriptor there first."""
    if sys.platform != "win32" and hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


def pread_into(descriptor: int, target: memoryview, offset: int) -> int:
    """`pread` into memory; -> the number of bytes."""
    if sys.platform != "win32" and hasattr(os, "preadv"):
        return os.preadv(descriptor, [target], offset)
    content = pread(descriptor, len(target), offset)
    target[: len(content)] = content
    return len(content)


def anonymous_file() -> int:
    """The descriptor of a new file without a name: in memory where the system has such files."""
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        return os.memfd_create("rrtn")
    import tempfile  # none of these is for `rrtn --help`

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class NamedFile:
    """A file of this process that others of the same user open by its name. It is gone when it is closed.

    It lies in memory where the system has such files. On Windows one of a killed process stays.
    """

    def __init__(self) -> None:
        if DESCRIPTORS and sys.platform == "linux" and hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("rrtn")
            self.file: IO[bytes] = open(descriptor, "w+b")  # noqa: SIM115
            self.path = b"/proc/%d/fd/%d" % (os.getpid(), descriptor)
        else:
            import tempfile

            # Windows opens no file a second time that is to be removed at its end.
            keeps = sys.platform == "win32"
            self.file = tempfile.NamedTemporaryFile(prefix="rrtn-", delete=not keeps)  # noqa: SIM115
            self.path = os.fsencode(self.file.name)

    def close(self) -> None:
        """The file goes, however often this is called."""
        self.file.close()
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                Path(os.fsdecode(self.path)).unlink()

    def __enter__(self) -> "NamedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fsync(path: Path) -> None:
    """Forces a file's content, or a folder's entries, to the disk. Windows does not do so for folders."""
    descriptor = os.open(path, _TO_SYNC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileInUseError(PermissionError):
    """Another program has the file open, and the system keeps it for that program: Windows does."""


def replace(source: Path, target: Path) -> None:
    """Renames. Where a program has one of the files open, Windows refuses that: this waits for two seconds.

    Raises FileInUseError after that.
    """
    for pause in _PAUSES:
        with contextlib.suppress(PermissionError):
            source.replace(target)
            return
        time.sleep(pause)
    try:
        source.replace(target)
    except PermissionError as error:
        if error.errno == errno.EACCES and target.exists() and os.access(target.parent, os.W_OK):
            raise FileInUseError(error.errno, "another program has it open", str(target)) from error
        raise


def with_slashes(path: bytes) -> bytes:
    """A path as tables have it: with / on every system."""
    return path.replace(b"\\", b"/") if sys.platform == "win32" else path


def user_number() -> int | None:
    """The user's number; None on Windows, where each user has a temporary folder of their own."""
    return os.getuid() if hasattr(os, "getuid") else None


def flush_c_stdout() -> None:
    """Flushes what C libraries have for stdout. On Windows each has a buffer of its own, out of reach."""
    if sys.platform != "win32":
        import ctypes

        ctypes.CDLL(None).fflush(None)


# Memory


def total_memory() -> int | None:
    """Bytes that the machine has; None where the system does not say."""
    if sys.platform == "win32" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_in_use(kind: MemoryKind) -> int | None:
    """Bytes that count for the limit of this kind; None where limits do not hold: macOS, Windows."""
    with contextlib.suppress(OSError), open(_STATM, encoding="ascii") as file:
        return int(file.read().split()[_STATM_FIELDS[kind]]) * mmap.PAGESIZE
    return None


def memory_limits(kind: MemoryKind) -> tuple[int, int]:
    """The limit that stands, and the highest that may be set; NO_LIMIT is none."""
    if resource is None:
        return NO_LIMIT, NO_LIMIT
    soft, hard = resource.getrlimit(_limit(kind))
    return soft, hard


def set_memory_limits(kind: MemoryKind, limits: tuple[int, int]) -> None:
    """Sets both numbers of `memory_limits`."""
    if resource:
        resource.setrlimit(_limit(kind), limits)


def _limit(kind: MemoryKind) -> int:
    return int(resource.RLIMIT_AS if kind == "space" else resource.RLIMIT_DATA)


# Processes


class SharedMemory:
    """Bytes that this process shares with one that it starts, until both have let go of them."""

    def __init__(self, size: int) -> None:
        self._descriptors: tuple[int, ...] = ()
        if sys.platform == "win32":
            self.name = f"rrtn-{os.getpid()}-{os.urandom(8).hex()}"
            self.map = mmap.mmap(-1, size, tagname=self.name)
        else:
            descriptor = anonymous_file()
            self._descriptors, self.name = (descriptor,), str(descriptor)
            try:
                os.ftruncate(descriptor, size)
                self.map = mmap.mmap(descriptor, size)
            except BaseException:
                self.hand_over()
                raise

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the other process must inherit to open it."""
        return self._descriptors

    def hand_over(self) -> None:
        """Called when the other process has been started. The memory stays, the descriptors go."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = ()


def opened_memory(name: str, size: int) -> mmap.mmap:
    """The SharedMemory of this name, in the process that was started for it."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=name)
    return mmap.mmap(int(name), size)


class Inherited(NamedTuple):
    """What a process is started with, beside its command."""

    pipe: int  # of a multiprocessing.connection.Connection
    memory: SharedMemory


def start_process(
    command: Sequence[str], inherited: Inherited, *, env: dict[str, str], errors: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """Starts a process with a pipe and memory of this one. It reads nothing, and writes to `errors`."""
    import subprocess

    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": errors, "env": env}
    streams["stdin"] = subprocess.DEVNULL if _keeps_parents() else subprocess.PIPE
    if sys.platform == "win32":
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [inherited.pipe]})
        os.set_handle_inheritable(inherited.pipe, True)
        return subprocess.Popen(
            command,
            startupinfo=startup,
            creationflags=subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW,
            **streams,
        )
    return subprocess.Popen(command, pass_fds=(inherited.pipe, *inherited.memory.descriptors), **streams)


def inherited_connection(pipe: int) -> "Connection[Any, Any]":
    """The end of a pipe with which this process was started."""
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection

        return cast("Connection[Any, Any]", PipeConnection(pipe))  # both have the same methods
    from multiprocessing.connection import Connection

    return Connection(pipe)


def end_with_parent() -> None:
    """Ends this process when the one that started it with `start_process` has ended, however that was."""
    wait = _until_adopted if _keeps_parents() else _until_stdin_ends
    threading.Thread(target=lambda: (wait(), os._exit(1)), daemon=True).start()


def _keeps_parents() -> bool:
    """Whether os.getppid changes when the parent ends. Windows keeps its number."""
    return sys.platform != "win32" and hasattr(os, "getppid")


def _until_adopted() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)


def _until_stdin_ends() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass


def go_behind(niceness: int) -> None:
    """Lets other processes go first. On Windows `start_process` has done so."""
    if hasattr(os, "nice"):
        os.nice(niceness)


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP); False where the system does not say."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()[0] == b"T"
    return False


def after_fork_in_child(call: Callable[[], object]) -> None:
    """Calls it in each process that is forked from this one, where there is fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def pipe_without_waiting() -> tuple[int, int]:
    """The ends to read and to write of a pipe that is never waited for."""
    ends = os.pipe()
    if sys.platform != "win32":
        for end in ends:
            os.set_blocking(end, False)
    return ends


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes that start inside never see Ctrl-C, because they inherit the signal mask.

    Windows has no mask: processes there call `ignore_interrupts` first.
    """
    if sys.platform == "win32" or not hasattr(signal, "pthread_sigmask"):
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Leaves Ctrl-C to the process that has started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def interpreter_names() -> list[str]:
    """Where a Python has its program, below the folder that it is installed in."""
    major, minor = sys.version_info[:2]
    if sys.platform == "win32":
        return ["python.exe"]
    return [f"bin/python{major}.{minor}", f"bin/python{major}", "bin/python"]


def likely_interpreters() -> list[str]:
    """Programs that may be this Python, the likeliest first.

    In a virtual environment on Windows sys.executable only starts the real one, as a process of its own.
    """
    base = getattr(sys, "_base_executable", None)
    found = [base, sys.executable] if sys.platform == "win32" else [sys.executable, base]
    return [path for path in found if path]


def quoted(argument: str | Path) -> str:
    """An argument as the system's shell takes it."""
    argument = str(argument)
    if sys.platform == "win32":
        import subprocess

        return subprocess.list2cmdline([argument])
    return shlex.quote(argument)


def usable_cores() -> int:
    """The number of cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
