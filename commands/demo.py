"""rrtn demo: calls the other commands, one after the other."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Optional

import typer

from ..runtime.errors import StoppedError
from ..runtime.system.host import quoted
from .evaluate import evaluate, report
from .export import export
from .options import EXIT_SOME_ERRORS, Json
from .printing import say
from .score import score
from .train import train

_SECONDS: Final = 165.0  # for all of the demo
_REST: Final = 2.2  # what comes after the training takes as long as so many first epochs
_MOST_EPOCHS: Final = 8
_EPOCH: Final = 30.0  # s, where a stopped demo goes on and has measured none
_BATCH: Final = 16
_SUFFIX: Final = "-demo"  # of the run's folder


def demo(
    audio: Annotated[
        Optional[list[str]], typer.Argument(metavar="AUDIO", help="Files to score.", show_default=False)
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="The demo's run; default: a new one below runs/.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run everything once on synthetic voices. It takes one to three minutes.

    The commands are train, export, score, train again, evaluate, export with an engine, score, and
    report. A faster machine trains for more epochs. Where a demo was stopped, the same command goes on.
    """
    from ..train.data.builtin import demo_corpus
    from ..train.run_folder import RunFolder

    with _same_command_goes_on():
        with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
            say("The demo learns from SYNTHETIC voices: its scores say nothing about real ones.")
            data = demo_corpus()
            run = out or _unfinished_run(data) or _new_run()
            files = audio or [str(path) for path in sorted((data / "wav").iterdir())[-8:]]
            epochs = _epochs_of(run, data)
            if epochs <= 1:
                epochs = _first_part(run, data, files)
            _the_rest(run, epochs)
        all_scored = _score(files, RunFolder(run).export, as_json=as_json)
        _heading(f"rrtn report {quoted(run)}")
        report([run])
    say(f"One page with all of this: {RunFolder(run).report}")
    if not all_scored:
        raise typer.Exit(EXIT_SOME_ERRORS)


def _new_run() -> Path:
    """The folder of a new demo."""
    from ..train.run_folder import RUNS

    return RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}{_SUFFIX}"


def _unfinished_run(data: Path) -> Path | None:
    """The newest demo, if it has no report yet, which is what comes last."""
    from ..train.run_folder import RUNS, RunFolder

    run = max(RUNS.glob(f"*{_SUFFIX}"), default=None)
    if run is None or RunFolder(run).report.exists():
        return None
    goes_on = _epochs_of(run, data) or not RunFolder(run).is_begun()
    return run if goes_on else None


@contextlib.contextmanager
def _same_command_goes_on() -> Iterator[None]:
    """Training says how it goes on by itself; what was asked for is the demo."""
    try:
        yield
    except StoppedError as error:
        if error.exit_code > 128:
            error.fix = "run the same command again: it goes on there"
        raise


def _epochs_of(run: Path, data: Path) -> int:
    """The epochs that a demo was last begun for; 0 where there is none, or a run on other data."""
    from ..train.config_file import config_from_toml
    from ..train.run_folder import RunFolder

    folder = RunFolder(run)
    if not folder.is_begun():
        return 0
    config = config_from_toml(folder.config)
    return config.optim.epochs if Path(config.data.dir) == data.resolve() else 0


def _first_part(run: Path, data: Path, files: list[str]) -> int:
    """Trains for one epoch, exports, scores; -> how many epochs there is time for."""
    from ..train.run_folder import RunFolder

    begin = time.monotonic()
    epoch = _first_epoch(run, data)
    _heading(f"rrtn export {quoted(run)} --no-waveform --no-cpu-variant")
    export(run, waveform=False, cpu_variant=False)
    _score(files, RunFolder(run).export)
    left = (_SECONDS - (time.monotonic() - begin)) / epoch - _REST
    return 1 + max(1, min(int(left), _MOST_EPOCHS - 1))


def _first_epoch(run: Path, data: Path) -> float:
    """Gives the seconds that it took, or would take where a part of it is there."""
    import torch  # noqa: F401  # its import is no part of an epoch

    from ..runtime.system.cpus import has_bf16

    begin = time.monotonic()
    if _epochs_of(run, data):
        _heading(f"rrtn train --resume --out {quoted(run)}")
        train(resume=True, out=run)
        return _EPOCH
    precision = "bf16" if has_bf16() else "fp32"
    options = f"--epochs 1 --batch-size {_BATCH} --precision {precision} --out {quoted(run)}"
    _heading(f"rrtn train --data {quoted(data)} {options}")
    train(data=data, epochs=1, batch_size=_BATCH, precision=precision, out=run)
    return time.monotonic() - begin


def _the_rest(run: Path, epochs: int) -> None:
    _heading(f"rrtn train --resume --out {quoted(run)} --epochs {epochs}")
    train(resume=True, out=run, epochs=epochs)
    _heading(f"rrtn evaluate {quoted(run)}")
    evaluate(run)
    _heading(f"rrtn export {quoted(run)} --trt")
    export(run, trt=True)


def _score(files: list[str], bundle: Path, *, as_json: bool = False) -> bool:
    """Whether it could score them all: a bad file stops no demo."""
    _heading(f"rrtn score {' '.join(map(quoted, files))} --model {quoted(bundle)}")
    try:
        score(files, model=bundle, as_json=as_json)
    except typer.Exit as ended:
        if ended.exit_code != EXIT_SOME_ERRORS:
            raise
        return False
    return True


def _heading(command: str) -> None:
    say("")
    say(f"$ {command}")
