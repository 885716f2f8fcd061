"""rrtn demo: the other commands, one after the other."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from .evaluate import evaluate, report
from .export import export
from .options import Json
from .printing import plain, say
from .score import score
from .train import train


def demo(
    audio: Annotated[
        Optional[list[str]], typer.Argument(help="Files to score at the end.", show_default=False)
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="The demo's run; default: a new one below runs/.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Everything once on the built-in corpus: train, evaluate, export with an engine, report, score.

    Minutes on two cores.
    """
    from ..train.data.builtin import builtin_corpus
    from ..train.run_folder import RUNS, RunFolder

    run = out or RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-demo"
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        _heading(f"rrtn train --out {run}")
        train(out=run)
        _heading(f"rrtn evaluate {run}")
        evaluate(run)
        _heading(f"rrtn export {run} --trt")
        export(run, trt=True)
        _heading(f"rrtn report {run}")
        report([run])
    files = audio or [str(path) for path in sorted((builtin_corpus() / "wav").iterdir())[-8:]]
    _heading(f"rrtn score {' '.join(files)} --model {RunFolder(run).export}")
    score(files, model=RunFolder(run).export, as_json=as_json)
    say(f"All of it on one page: [bold]{plain(RunFolder(run).report)}[/]")


def _heading(command: str) -> None:
    say(f"\n[bold cyan]$ {plain(command)}[/]")
