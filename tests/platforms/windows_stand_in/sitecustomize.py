"""Linux as poor as Windows, for the modules of rrtn: first in PYTHONPATH of a process and its children.

Gone are the modules and functions that Windows lacks, /proc, and every way to start a process but spawn.
A file that a process of this job has open or mapped can be neither renamed nor removed, nor can its folder.
Text without an encoding is an error: on Windows it would be cp1252. RRTN_STAND_IN is a folder for the job.

Other packages keep what they have: they do otherwise on Windows, and that is theirs to test. Left as they
are: `/` in paths, names that differ in case alone, and Ctrl-C.
"""

import builtins
import importlib
import multiprocessing.context
import os
import sys
import types
import warnings
from pathlib import Path

GONE_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
GONE = {
    "os": """chown fchmod fchown fork forkpty getegid geteuid getgid getloadavg getpgid getpgrp getppid getuid
        killpg memfd_create mkfifo nice openpty pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv
        pwrite pwritev register_at_fork sched_getaffinity sched_setaffinity sendfile setpgid
        setpriority setsid statvfs sysconf uname wait WNOHANG O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW
        O_NONBLOCK O_SYNC""",
    "signal": """SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 alarm
        pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigwait""",
}
SHARED = {
    "genericpath",
    "pathlib",
    "posixpath",
    "shutil",
    "io",
    "contextlib",
    "codecs",
}  # work for any caller
JOB = Path(os.environ["RRTN_STAND_IN"])
(JOB / str(os.getpid())).touch()


def poor(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(vars(importlib.import_module(name)))
    for attribute in GONE[name].split():
        module.__dict__.pop(attribute, None)
    return module


def is_rrtns(depth: int) -> bool:
    """Whether the code that many frames above is of rrtn, or works for it."""
    frame = sys._getframe(depth)
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in SHARED:
        frame = frame.f_back
    return bool(frame) and frame.f_globals.get("__name__", "").startswith("rrtn.")


real_import, real_import_module, real_stat = builtins.__import__, importlib.import_module, os.stat


def import_(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and globals and str(globals.get("__name__")).startswith("rrtn."):
        if name in GONE_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in POOR:
            return POOR[name]
    return real_import(name, globals, locals, fromlist, level)


def import_module(name, package=None):
    if name in GONE_MODULES and is_rrtns(2):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real_import_module(name, package)


def stat(path, *arguments, **options):
    if is_of_proc(path) and is_rrtns(2):
        raise FileNotFoundError(2, "No such file or directory", path)
    return real_stat(path, *arguments, **options)


def hide_proc(event, arguments):
    if event == "open" and is_of_proc(arguments[0]) and is_rrtns(2):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


def is_of_proc(path) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and os.fsencode(path).startswith(b"/proc/")


def in_use(path: bytes) -> bool:
    """Whether a process of this job has the file, or one below the folder, open or mapped."""
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return any(held == path or held.startswith(path + b"/") for held in held_paths())


def held_paths():
    for pid in os.listdir(JOB):
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                yield os.readlink(f"/proc/{pid}/fd/{descriptor}".encode())
            with open(f"/proc/{pid}/maps", "rb") as maps:
                yield from (line.split(None, 5)[5].rstrip(b"\n") for line in maps if b"/" in line)
        except OSError:  # it has ended
            continue


def refusing(call):
    """`call`, which takes a name away, or a file's content: refused where the file is in use."""

    def called(path, *others, dir_fd=None, **options):
        if is_rrtns(2):
            folder = os.readlink(f"/proc/self/fd/{dir_fd}".encode()) if dir_fd is not None else b""
            for name in (path, *others):
                if in_use(os.path.join(folder, os.fsencode(name))):
                    raise PermissionError(13, "The process cannot access the file: it is in use", path)
        return call(path, *others, **({"dir_fd": dir_fd} if dir_fd is not None else {}), **options)

    return called


for name in ("rename", "replace", "unlink", "remove", "rmdir"):
    setattr(os, name, refusing(getattr(os, name)))
POOR = {name: poor(name) for name in GONE}
os.stat, importlib.import_module, builtins.__import__ = stat, import_module, import_
sys.addaudithook(hide_proc)
for kind in ("fork", "forkserver"):
    multiprocessing.context._concrete_contexts.pop(kind)
multiprocessing.set_start_method("spawn")
warnings.filterwarnings("error", category=EncodingWarning, module="rrtn")
