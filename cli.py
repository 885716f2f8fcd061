"""The `rrtn` command: the names of its commands.

The module of a command is imported when that command is called. So `rrtn --help` costs little more than
importing typer.
"""

import io
import os
import sys
from typing import Annotated, Final, NoReturn

import typer

from . import __version__
from .commands.ending import NOBODY_READS, error_for_user, error_of_signal, fail, leave
from .commands.lazy_group import ListedCommand, lazy_group
from .commands.program import catch_signals
from .commands.streams import hold_streams
from .runtime.errors import RrtnError, StoppedError

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
        fail(StoppedError("the working directory", "was removed", fix="cd to a folder that is there"))
    stdout = sys.stdout
    code: object
    try:
        code = app(prog_name="rrtn", standalone_mode=False)
    except SystemExit as ended:
        # Where stdout is a closed pipe, typer puts a silent one in its place.
        code = ended.code if sys.stdout is stdout else NOBODY_READS
    except RrtnError as error:
        fail(error)
    except BaseException as raised:
        # Whatever a signal has become on its way here: libraries turn one exception into another.
        fail(error_of_signal() or error_for_user(raised))
    if stopped := error_of_signal(code):
        fail(stopped)
    leave(code if isinstance(code, int) else int(code is not None))


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
