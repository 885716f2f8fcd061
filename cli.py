"""The `rrtn` command: the names of its commands, and how each of them ends.

The module of a command is imported when that command is called. So `rrtn --help` costs little more than
importing typer.
"""

import gc
import io
import os
import re
import signal
import sys
import traceback
from typing import Annotated, Any, Final, NoReturn

import typer

from . import __version__
from .commands.lazy_group import ListedCommand, lazy_group
from .commands.printing import print_error, print_json
from .commands.program import (
    as_called,
    catch_signals,
    ends_with,
    has_ended,
    let_signals_end_it,
    signal_that_came,
    stopped_by_signal,
    wants_json,
    wants_json_lines,
)
from .commands.streams import hold_streams
from .runtime.errors import ConfigError, MissingExtraError, RrtnError, StoppedError

COMMANDS: Final = {
    "train": ListedCommand("train", "Train the network on rated clips."),
    "evaluate": ListedCommand("evaluate", "Measure the CCC of each target, with intervals over speakers."),
    "crossval": ListedCommand("crossval", "Train once for each fold of speakers, and evaluate on all clips."),
    "table2": ListedCommand("table2", "Train the nine rows of the paper's Table 2 on your data."),
    "report": ListedCommand("evaluate", "Write one HTML page about a run, or about several."),
    "export": ListedCommand("export", "Write ONNX and TensorRT files that give the scores of PyTorch."),
    "parity": ListedCommand("export", "Compare every variant on this machine with PyTorch again."),
    "score": ListedCommand("score", "Score audio files, into a table or on the screen."),
    "serve": ListedCommand("serve", "Score sounds that come over HTTP."),
    "tracks": ListedCommand("tracks", "Write label tracks and a page of the windows or bursts in a table."),
    "listen": ListedCommand("listen", "Score what a microphone hears, window after window."),
    "pack": ListedCommand("pack", "Put many small files into few Parquet files, which score the same."),
    "inspect": ListedCommand("inspect", "Show what is in a bundle, and what of it can run here."),
    "bench": ListedCommand("bench", "Measure latency and throughput of every variant that runs here."),
    "tune": ListedCommand("tune", "Measure what is the fastest on this machine, for --backend auto."),
    "doctor": ListedCommand("doctor", "Show what this machine can do, what is missing, and the fix."),
    "demo": ListedCommand("demo", "Run everything once on synthetic voices. It takes one to three minutes."),
    "data": ListedCommand("data", "Make, import or check a data set."),
}

_OF_EXTRA_TRAIN: Final = frozenset(
    {"torch", "torchaudio", "safetensors", "onnx", "onnxscript", "tomli_w", "jinja2"}
)
_BUG: Final = 1
_FIX_IT: Final = "fix it and run the command again"
_NOBODY_READS: Final = 141  # `| head -1` has closed stdout: the exit code that SIGPIPE would give
_USAGE_ERROR: Final = typer.BadParameter.__base__ or typer.BadParameter  # typer does not name it


app = typer.Typer(
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    help="From a folder of rated vocal bursts to a model that runs anywhere: "
    "rrtn train, rrtn export, rrtn score.",
    epilog="Try it without any data: rrtn demo. What this machine can do: rrtn doctor.",
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options before the command."""
    if version:
        print(f"rrtn {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Runs the command, and ends the process."""
    hold_streams()
    catch_signals()
    _print_anything()
    if not _has_folder() and {"--help", "--version"}.isdisjoint(sys.argv):
        # Libraries below torch end the process by themselves there.
        _fail(StoppedError("the working directory", "was removed", fix="cd to a folder that is there"))
    stdout = sys.stdout
    code: object
    try:
        code = app(prog_name="rrtn", standalone_mode=False)
    except SystemExit as ended:
        # Where stdout is a closed pipe, typer puts a silent one in its place.
        code = ended.code if sys.stdout is stdout else _NOBODY_READS
    except RrtnError as error:
        _fail(error)
    except BaseException as raised:
        # Whatever a signal has become on its way here: libraries turn one exception into another.
        _fail(_stopped() or _error_for_user(raised))
    if stopped := _stopped(code):
        _fail(stopped)
    _leave(code if isinstance(code, int) else int(code is not None))


def _error_for_user(raised: BaseException) -> RrtnError:
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
        from .runtime.system.files import name_refused  # not for `rrtn --help`

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
        _leave(raised.exit_code)
    command = raised.ctx.command_path if raised.ctx else "rrtn"
    return ConfigError(command, raised.format_message().removesuffix("."), fix=f"{command} --help")


def _stopped(code: object = None) -> StoppedError | None:
    """The error of the signal that came. `code` is 130 where typer has caught Ctrl-C.

    None where the command has caught the signal, and said so.
    """
    if has_ended():
        return None
    number = signal_that_came() or (signal.SIGINT if code == 128 + signal.SIGINT else None)
    return stopped_by_signal(number) if number else None


def _has_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _print_anything() -> None:
    """Lets names be printed that the terminal's encoding lacks: LC_ALL=C, PYTHONIOENCODING=ascii."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _fail(error: RrtnError) -> NoReturn:
    """Prints the error, and with --json a document of it, too: that of the first rank under torchrun."""
    ends_with(error.exit_code)
    error.fix = as_called(error.fix)
    print_error(error)
    _leave(error.exit_code, {"error": error.to_dict()} if wants_json() else None)


def _print_document(document: dict[str, Any]) -> None:
    print_json(document, indent=None if wants_json_lines() else 2)


def _leave(code: int, document: dict[str, Any] | None = None) -> NoReturn:
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
            code = _NOBODY_READS
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
