"""The `rrtn` command: its list of commands, and how every one of them ends."""

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from . import __version__
from .commands.bench import bench
from .commands.data import data_app
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.evaluate import evaluate, report
from .commands.export import export, parity
from .commands.inspect import inspect
from .commands.pack import pack
from .commands.score import score
from .commands.table2 import table2
from .commands.train import train
from .runtime.errors import MissingExtraError, RrtnError, StoppedError

_INTERRUPTED = "interrupted | what is finished is kept | run the command again (rrtn train: with --resume)"
_NOBODY_READS = 141  # `| head -1`: as if SIGPIPE had ended it
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a folder of rated vocal bursts to a model that runs anywhere: rrtn train, rrtn export --trt, rrtn score.",
    epilog="Try it without any data: rrtn demo. What this machine can do: rrtn doctor.",
)
for command in (train, evaluate, table2, report, export, parity, score, pack, inspect, bench, doctor, demo):
    app.command()(command)
app.add_typer(data_app, name="data")


def main() -> NoReturn:
    """Entry point of the `rrtn` command."""
    signal.signal(signal.SIGTERM, _terminate)
    stdout = sys.stdout
    try:
        app(standalone_mode=True)
    except RrtnError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(_INTERRUPTED, 130)
    except SystemExit as done:
        if done.code == 130:  # typer has caught Ctrl-C
            _fail(_INTERRUPTED, 130)
        if sys.stdout is not stdout:  # typer has caught a closed pipe, and put what is silent there
            _leave(_NOBODY_READS)
        _leave(done.code if isinstance(done.code, int) else int(done.code is not None))
    except ImportError as error:
        missing = _missing_extra(error)
        _fail(str(missing), missing.exit_code)
    except OSError as error:
        stopped = StoppedError(
            f"{error.filename or 'storage'} | {error.strerror or error} | mend it, then run again"
        )
        _fail(str(stopped), stopped.exit_code)
    _leave(0)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options before the command."""
    if version:
        print(f"rrtn {__version__}")
        raise typer.Exit


def _fail(message: str, code: int) -> NoReturn:
    print("rrtn: " + " ".join(message.split()), file=sys.stderr, flush=True)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Under torchrun without Python's own end: the process group's threads may hang in it, or abort."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _NOBODY_READS
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own end would try again
    if "RANK" in os.environ:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _missing_extra(error: ImportError) -> MissingExtraError:
    """A package of an extra; anything else is a bug and keeps its traceback."""
    of_train = ("torch", "torchaudio", "safetensors", "onnx", "onnxscript", "tomli_w", "jinja2")
    extras = dict.fromkeys(of_train, "train")
    if error.name not in extras:
        raise error
    return MissingExtraError(
        f'{error.name} | not installed | needed for this command | pip install "rrtn[{extras[error.name]}]"'
    )


def _terminate(signum: int, frame: object) -> NoReturn:
    sys.exit(128 + signum)
