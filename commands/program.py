"""The program as it was called: its name in advice, and what a signal does to it.

It is loaded before anything else, so that a signal while the rest is loaded ends in one line. So it imports
little.
"""

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from ..runtime.errors import StoppedError
from ..runtime.system.descriptors import stderr_descriptor
from ..runtime.system.host import HANG_UP, quoted
from ..runtime.text import json_text

if TYPE_CHECKING:
    from ..train.run_folder import RunFolder

_NAME: Final = "rrtn"
_SIGNALS: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", HANG_UP: "hung up"}
_SAYING: Final = 1.0  # s
_AGAIN: Final = "run the same command again"
_Advice = Callable[[list[str]], tuple[str, str]]  # arguments -> what is kept, and what to do


class _State:
    """What signals have done to this process."""

    process = 0  # the one that catches signals; one that it forks does not
    came: signal.Signals | None = None
    code: int | None = None  # once the command says how it ended
    run: Path | None = None  # that this process trains
    waits_until = 0.0  # of time.monotonic(): before that a signal does not end what says how it ended


def program_name() -> str:
    """What a shell takes for this program: `rrtn`, `.venv/bin/rrtn`, `python3 -m rrtn`."""
    called = sys.argv[0] if sys.argv else ""
    if called.endswith(f"{_NAME}{os.sep}__main__.py"):
        return f"{quoted(sys.orig_argv[0] if sys.orig_argv else 'python')} -m {_NAME}"
    if os.path.basename(called) != _NAME:
        return _NAME  # called by another program
    found = (os.path.join(folder, _NAME) for folder in os.environ.get("PATH", "").split(os.pathsep))
    first = next((path for path in found if os.access(path, os.X_OK) and not os.path.isdir(path)), "")
    if os.sep not in called or (first and os.path.realpath(first) == os.path.realpath(called)):
        return _NAME
    return quoted(called)


def as_called(advice: str) -> str:
    """The advice with commands of this program as the person can paste them."""
    return _IN_ADVICE.sub(lambda _: program_name() + " ", advice) if _NAME in advice else advice


def catch_signals() -> None:
    """Lets Ctrl-C, SIGTERM and the end of the terminal end this process in one line.

    A second Ctrl-C or SIGTERM ends it at once. A terminal may say twice that it ends.
    """
    if _State.process == os.getpid():
        return
    _State.process = os.getpid()
    _State.came = _State.code = _State.run = None
    for number in filter(None, (signal.SIGINT, signal.SIGTERM, HANG_UP)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a background job ignores Ctrl-C, nohup the end
            signal.signal(number, _handle)


def signal_that_came() -> signal.Signals | None:
    """The signal that is ending this process."""
    return _State.came


def trains_in(run: Path) -> None:
    """Says which run this process has begun, or goes on with."""
    _State.run = run


def ends_with(code: int) -> None:
    """Says that the command is about to say how it ended. From now on a signal adds nothing.

    Signals wait until that is printed, for one second at most: the pipe may be full.
    """
    _State.waits_until, _State.code = time.monotonic() + _SAYING, code


def let_signals_end_it() -> None:
    """Says that the command has said how it ended: from now on a signal ends the process at once."""
    _State.waits_until = 0.0


def has_ended() -> bool:
    """Whether the command has said how it ended."""
    return _State.code is not None


def stopped_by_signal(number: int) -> StoppedError:
    """What is true of the command that a signal has stopped, as it stands on the command line."""
    arguments = sys.argv[1:]
    names = [argument for argument in arguments if not argument.startswith("-")]
    command = " ".join(names[:2]) if names[:1] == ["data"] else (names or [""])[0]
    kept, fix = _WHEN_STOPPED.get(command, _nothing)(arguments)
    return StoppedError(_SIGNALS[signal.Signals(number)], kept, fix=fix, exit_code=128 + number)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:
        os._exit(128 + number)
    if _State.code is not None:
        if time.monotonic() < _State.waits_until:
            return
        os._exit(_State.code)
    if _State.came and number == HANG_UP:
        return
    if _State.came or _is_importing(frame):
        _end_at_once(number)
    _State.came = signal.Signals(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded: some turn an exception in there into another one, or lose it."""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end_at_once(number: int) -> NoReturn:
    ends_with(128 + number)  # a third signal may come before the end
    error = stopped_by_signal(number)
    error.fix = as_called(error.fix)
    _write(stderr_descriptor(), f"{_NAME}: {error}\n")
    if wants_json():
        indent = None if wants_json_lines() else 2
        _write(1, json_text({"error": error.to_dict()}, indent=indent) + "\n")
    os._exit(error.exit_code)


def _write(descriptor: int, text: str) -> None:
    """Not by sys.stderr: the signal may have come in the middle of a print."""
    with contextlib.suppress(OSError):  # nobody may read it
        os.write(descriptor, text.encode(errors="backslashreplace"))


def words_of_signal(number: signal.Signals) -> str:
    """Such as "interrupted"."""
    return _SIGNALS[number]


def wants_json() -> bool:
    """Whether this process prints a document of how it ended: under torchrun, the first rank."""
    options = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    return "--json" in options and os.environ.get("RANK", "0") == "0"


def wants_json_lines() -> bool:
    """Whether these documents are an object on a line each: commands that go on until they are ended."""
    command, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    is_live = any(
        one == "-" and before != "--list" for before, one in zip(["", *arguments], arguments, strict=False)
    )
    return wants_json() and (command in ("serve", "listen") or (command == "score" and is_live))


def _option(arguments: list[str], name: str) -> str | None:
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _nothing(_: list[str]) -> tuple[str, str]:
    return "nothing was written, and nothing is kept", _AGAIN


def _of_score(arguments: list[str]) -> tuple[str, str]:
    if out := _option(arguments, "--out"):
        return f"finished parts of about 512 files are kept beside {out}", f"{_AGAIN}: it goes on there"
    return "nothing is kept: without --out there is no table", _AGAIN


def _of_train(arguments: list[str]) -> tuple[str, str]:
    if "--dry-run" in arguments:
        return _nothing(arguments)
    run = _run_of_training(arguments)
    if run is None:
        return "no run was begun; clips that are decoded are kept", _AGAIN
    kept = _folder_of(run).last.exists()
    last = "its last checkpoint is kept" if kept else "it has no checkpoint yet"
    return f"run {run}: {last}", f"{_NAME} train --resume --out {quoted(run)}"


def _folder_of(run: Path) -> "RunFolder":
    from ..train.run_folder import RunFolder  # not above: this module is loaded first

    return RunFolder(run)


def _run_of_training(arguments: list[str]) -> Path | None:
    """The run that this process has begun, or goes on with."""
    out = _option(arguments, "--out")
    run = Path(out) if out else _State.run
    return run if run and _folder_of(run).is_begun() else None


def _goes_on(kept: str) -> _Advice:
    return lambda _: (kept, f"{_AGAIN}: it goes on there")


def _keeps(kept: str) -> _Advice:
    return lambda _: (kept, _AGAIN)


# Of each command: what is kept where a signal has stopped it, and what to do.
_WHEN_STOPPED: Final[dict[str, _Advice]] = {
    "train": _of_train,
    "evaluate": _keeps("scores of runs that are finished are kept"),
    "crossval": _goes_on("folds and checkpoints that are finished are kept"),
    "table2": _goes_on("runs and checkpoints that are finished are kept"),
    "report": _keeps("no page was written, and one that was there is as it was"),
    "export": _keeps("nothing is kept, and a bundle that was there is as it was"),
    "parity": _nothing,
    "score": _of_score,
    "serve": _keeps("it takes no more requests"),
    "tracks": _goes_on("files that were written are whole, and the others are missing"),
    "listen": _nothing,
    "pack": _goes_on("packs that are finished are kept"),
    "inspect": _nothing,
    "bench": _nothing,
    "tune": _nothing,
    "doctor": _nothing,
    "demo": _goes_on("steps that are finished are kept"),
    "data check": _keeps("clips that were decoded are kept"),
    "data import": _nothing,
    "data synth": lambda _: (
        "the folder is unfinished, and has no data_info.csv",
        f"remove it, and {_AGAIN}",
    ),
}
COMMANDS: Final = tuple(dict.fromkeys(name.split()[0] for name in _WHEN_STOPPED))
_IN_ADVICE: Final = re.compile(rf"(?<![\w./-]){_NAME} (?=--help|(?:{'|'.join(COMMANDS)})\b)")
