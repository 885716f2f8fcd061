"""rrtn demo: calls the other commands, one after the other."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Final, Optional

import typer

from .evaluate import evaluate, report
from .export import export
from .options import Json
from .printing import say
from .score import score
from .train import train

_SECONDS: Final = 165.0  # for all of the demo
_REST: Final = 2.2  # what comes after the training takes as long as so many first epochs
_MOST_EPOCHS: Final = 8
_BATCH: Final = 16


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
    """Run everything once on synthetic voices. It takes three minutes at most.

    The commands are train, export, score, train again, evaluate, export with an engine, report, and
    score. A faster machine trains for more epochs.
    """
    from ..runtime.cpus import has_bf16
    from ..train.data.builtin import demo_corpus
    from ..train.run_folder import RUNS, RunFolder

    begin = time.monotonic()
    run = out or RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-demo"
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        say("The demo learns from SYNTHETIC voices: its scores say nothing about real ones.")
        data = demo_corpus()
        files = audio or [str(path) for path in sorted((data / "wav").iterdir())[-8:]]
        precision = "bf16" if has_bf16() else "fp32"
        epoch = _first_epoch(run, data, precision)
        _heading(f"rrtn export {run} --no-waveform --no-cpu-variant")
        export(run, waveform=False, cpu_variant=False)
        _score(files, RunFolder(run).export)
        left = (_SECONDS - (time.monotonic() - begin)) / epoch - _REST
        _the_rest(run, 1 + max(1, min(int(left), _MOST_EPOCHS - 1)))
    _score(files, RunFolder(run).export, as_json=as_json)
    say(f"One page with all of this: {RunFolder(run).report}")


def _first_epoch(run: Path, data: Path, precision: str) -> float:
    """Gives the seconds that it took."""
    import torch  # noqa: F401  # its import is no part of an epoch

    _heading(f"rrtn train --data {data} --epochs 1 --batch-size {_BATCH} --precision {precision} --out {run}")
    begin = time.monotonic()
    train(data=data, epochs=1, batch_size=_BATCH, precision=precision, out=run)
    return time.monotonic() - begin


def _the_rest(run: Path, epochs: int) -> None:
    _heading(f"rrtn train --resume --out {run} --epochs {epochs}")
    train(resume=True, out=run, epochs=epochs)
    _heading(f"rrtn evaluate {run}")
    evaluate(run)
    _heading(f"rrtn export {run} --trt")
    export(run, trt=True)
    _heading(f"rrtn report {run}")
    report([run])


def _score(files: list[str], bundle: Path, *, as_json: bool = False) -> None:
    _heading(f"rrtn score {' '.join(files)} --model {bundle}")
    score(files, model=bundle, as_json=as_json)


def _heading(command: str) -> None:
    say(f"\n$ {command}")
