"""How a command ends: an error in one line, with --json as a document, too, and the exit code."""

import gc
import os
import re
import signal
import sys
import traceback
from typing import Any, Final, NoReturn

import typer

from ..runtime.errors import ConfigError, MissingExtraError, RrtnError, StoppedError
from .printing import print_error, print_json
from .program import (
    as_called,
    ends_with,
    has_ended,
    let_signals_end_it,
    signal_that_came,
    stopped_by_signal,
    wants_json,
    wants_json_lines,
)

NOBODY_READS: Final = 141  # `| head -1` has closed stdout: the exit code that SIGPIPE would give
_OF_EXTRA_TRAIN: Final = frozenset(
    {"torch", "torchaudio", "safetensors", "onnx", "onnxscript", "tomli_w", "jinja2"}
)
_BUG: Final = 1
_FIX_IT: Final = "fix it and run the command again"
_USAGE_ERROR: Final = typer.BadParameter.__base__ or typer.BadParameter  # typer does not name it


def error_for_user(raised: BaseException) -> RrtnError:
    """Re-raises bugs, so that they keep their traceback; with --json a document stands before it."""
    if isinstance(raised, _USAGE_ERROR):
        return _usage_refused(raised)
    if isinstance(raised, KeyboardInterrupt):
        return stopped_by_signal(signal.SIGINT)
    if isinstance(raised, ImportError) and raised.name in _OF_EXTRA_TRAIN:
        return MissingExtraError.of(raised.name, "train", "this command")
    if isinstance(raised, MemoryError):
        fix = "give it less at once (rrtn score: --batch-size), or stop other programs"
        return StoppedError("memory", "not enough for this command", fix=fix)
    if isinstance(raised, UnicodeEncodeError):
        return _name_refused(raised)
    if isinstance(raised, OSError):
        from ..runtime.system.files import name_refused  # not for `rrtn --help`

        subject, came = raised.filename or "storage", raised.strerror or raised
        return name_refused(subject, raised) or StoppedError(str(subject), str(came), fix=_FIX_IT)
    if wants_json():
        came = "".join(traceback.format_exception_only(raised)).strip()
        bug = RrtnError("a bug in rrtn", came, fix="report it with the lines on stderr", exit_code=_BUG)
        _print_document({"error": bug.to_dict()})
    raise raised


def _name_refused(raised: UnicodeEncodeError) -> RrtnError:
    """A file name that the locale, or a file of ours, cannot hold."""
    before = re.split("[\"'\n]", raised.object[: raised.start])[-1]  # it may stand in a whole document
    after = re.split("[\"'\n]", raised.object[raised.start :])[0]
    encoding = sys.getfilesystemencoding()
    fix = "rename it" if encoding == "utf-8" else "export PYTHONUTF8=1, and run the command again"
    came = f"the locale's encoding is {encoding}" if encoding != "utf-8" else "no UTF-8"
    return ConfigError(ascii(before + after), came, wanted="names in UTF-8", fix=fix)


def _usage_refused(raised: Any) -> RrtnError:
    """A wrong option or argument. A group of commands that is called without one prints its help."""
    if type(raised).__name__ == "NoArgsIsHelpError":
        print(raised.format_message())
        leave(raised.exit_code)
    command = raised.ctx.command_path if raised.ctx else "rrtn"
    return ConfigError(command, raised.format_message().removesuffix("."), fix=f"{command} --help")


def error_of_signal(code: object = None) -> StoppedError | None:
    """The error of the signal that came. `code` is 130 where typer has caught Ctrl-C.

    None where the command has caught the signal, and said so.
    """
    if has_ended():
        return None
    number = signal_that_came() or (signal.SIGINT if code == 128 + signal.SIGINT else None)
    return stopped_by_signal(number) if number else None


def fail(error: RrtnError) -> NoReturn:
    """Prints the error, and with --json a document of it, too: that of the first rank under torchrun."""
    ends_with(error.exit_code)
    error.fix = as_called(error.fix)
    print_error(error)
    leave(error.exit_code, {"error": error.to_dict()} if wants_json() else None)


def _print_document(document: dict[str, Any]) -> None:
    print_json(document, indent=None if wants_json_lines() else 2)


def leave(code: int, document: dict[str, Any] | None = None) -> NoReturn:
    """Ends the process. Under torchrun, and after a signal, Python's own end is left out.

    The threads of the process group may hang in it, or abort. A second signal in it would have the last word.
    """
    ends_with(code)
    try:
        if document:
            _print_document(document)
        sys.stdout.flush()
    except OSError as error:  # nobody reads, or the disk is full
        if isinstance(error, BrokenPipeError):
            code = NOBODY_READS
        elif not document:  # else the error was said
            stopped = StoppedError("stdout", error.strerror or str(error), fix=_FIX_IT)
            print_error(stopped)
            code = stopped.exit_code
        # Python flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    let_signals_end_it()
    if "RANK" in os.environ or signal_that_came():
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # Python's own end would look through all that was imported, once more
    sys.exit(code)
