"""How a decoder is started: by which Python, with which paths, and for which process.

A decoder is a new interpreter. `sys.executable` is one only in a program that Python itself runs: in a frozen
program (PyInstaller) or an embedding one (uWSGI, R) it is that program, which would start itself again and
again.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import ConfigError
from ..system.host import after_fork_in_child, interpreter_names, likely_interpreters

_PYTHON: Final = re.compile(r"(python|pypy)w?\d*(\.\d+)*[a-z]{0,3}(-dbg|-intel64)?(\.exe)?")  # its file name
_HOOK: Final = "--rrtn-decoder"  # the first argument of a frozen program that is to be a decoder
# In the environment of what is started as a decoder, until it is one. A program that finds this where it
# wants decoders of its own was itself started in place of a decoder.
_MARK: Final = "RRTN_DECODER"
_ENVIRONMENT: Final = {
    # A decoder has one thread.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc's malloc keeps the buffers of one file for the next. Otherwise the system would map and
    # zero every page anew, which takes as long as all the rest. Buffers of long files (above 16 MiB)
    # are still given back.
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
# What a decoder imports stays. To look through it for garbage, again and again and at the end, would take a
# sixth of its start.
_PROGRAM: Final = """
import gc, os, sys
gc.disable()
if sys.version_info[:2] != {version}:
    sys.exit("Python %d.%d, and the program runs %d.%d" % (sys.version_info[:2] + {version}))
sys.path[:] = [os.fsdecode(path) for path in {paths}]
os.environ.pop({mark!r}, None)
from {package}.decoder_process import main
main({pipe}, {memory!r})
"""


class Process(NamedTuple):
    """One process, and none that was forked from it."""

    number: int
    forks: int  # from the first process to this one; numbers are given again


class _State:
    """What changes in the life of a process."""

    forks = 0
    has_hook = False  # True once the program has called freeze_support
    lock = threading.Lock()  # a fork copies locks that other threads hold, so the child gets a new one


def freeze_support() -> None:
    """Lets a frozen program score files. It is the first call in the program's `if __name__ == "__main__":`.

    Decoders are processes of their own. A frozen program has no Python to start them with, so it starts
    itself, and in that process this function decodes and does not return. In any other program it does
    nothing.
    """
    if sys.argv[1:2] != [_HOOK]:
        _State.has_hook = True
        return
    from .decoder_process import main

    os.environ.pop(_MARK, None)
    main(int(sys.argv[2]), sys.argv[3])
    sys.exit()


def this_process() -> Process:
    """The process that calls. Its number alone would do for one that C has forked."""
    return Process(os.getpid(), _State.forks)


def check_process(owner: Process) -> None:
    """Raises ConfigError in a process that was forked from the owner: half of each message would go to it."""
    if owner != this_process():
        raise ConfigError(
            "files",
            f"their scoring began in process {owner.number}, and this one was forked from it",
            wanted="rows in the process that asked for them",
            fix="call score_files again in the new process",
        )


def fork_lock() -> threading.Lock:
    """The lock that a forked process takes to replace what it cannot share. No fork can copy it locked."""
    return _State.lock


def decoder_environment() -> dict[str, str]:
    """The environment of a process that is to be a decoder."""
    return {**os.environ, **_ENVIRONMENT, _MARK: "1"}


def decoder_command(pipe: int, memory: str) -> list[str]:
    """The command that becomes a decoder with this end of a pipe and the memory of this name.

    Raises ConfigError in a program without a Python that could be one.
    """
    if _MARK in os.environ:
        raise ConfigError(
            "decoder",
            f"{sys.executable} was started as a decoder, and is another program",
            wanted="a Python interpreter",
            fix=_FIX,
        )
    if _is_frozen():
        if not _State.has_hook:
            raise ConfigError(
                "decoder",
                f"{sys.executable} is a frozen program, and cannot be started as a decoder",
                wanted="a call of rrtn.runtime.freeze_support() first in its main module",
                fix="add it, or score waveforms, which needs no decoder",
            )
        return [sys.executable, _HOOK, str(pipe), memory]
    program = _PROGRAM.format(
        version=tuple(sys.version_info[:2]),
        paths=_paths(),
        mark=_MARK,
        package=__package__,
        pipe=pipe,
        memory=memory,
    )
    return [_interpreter(), *_flags(), "-c", program]


_FIX: Final = "multiprocessing.set_executable(PATH OF PYTHON), or in a frozen program freeze_support()"


def _is_frozen() -> bool:
    return bool(getattr(sys, "frozen", False)) or hasattr(sys.modules.get("__main__"), "__compiled__")


def _interpreter() -> str:
    for path in _interpreters():
        if Path(path).is_file() and os.access(path, os.X_OK):
            return path
    raise ConfigError(
        "decoder",
        f"{sys.executable or 'this program'} is no Python interpreter, and {sys.exec_prefix} has none",
        wanted="one to start decoders with",
        fix=_FIX,
    )


def _interpreters() -> Iterator[str]:
    """Files that may be this Python, the likeliest first."""
    # Whoever calls multiprocessing.set_executable has imported this module.
    spawn = sys.modules.get("multiprocessing.spawn")
    chosen = spawn.get_executable() if spawn else None
    if chosen and os.fsdecode(chosen) != sys.executable:
        yield os.fsdecode(chosen)
    for path in likely_interpreters():
        if _PYTHON.fullmatch(os.path.basename(path)):
            yield path
    for prefix in dict.fromkeys((sys.exec_prefix, sys.base_exec_prefix)):
        for name in interpreter_names():
            yield os.path.join(prefix, name)


def _paths() -> list[bytes]:
    """Where a decoder looks for modules: where this process does, but not in a working directory."""
    home = str(Path(__file__).parents[3])
    return [os.fsencode(path) for path in dict.fromkeys([*sys.path, home]) if path]


def _flags() -> list[str]:
    """Those of this interpreter that say what it loads."""
    flags = sys.flags
    chosen = {
        "-P": True,  # a module in the working directory is nothing for a decoder
        "-I": flags.isolated,
        "-E": flags.ignore_environment,
        "-s": flags.no_user_site,
        "-S": flags.no_site,
        "-B": sys.dont_write_bytecode,
    }
    return [flag for flag, is_set in chosen.items() if is_set]


def _in_child() -> None:
    _State.forks += 1
    _State.lock = threading.Lock()


after_fork_in_child(_in_child)
