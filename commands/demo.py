"""rrtn demo: calls the other commands, one after the other."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from .evaluate import evaluate, report
from .export import export
from .options import Json
from .printing import say
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
    """Run everything once on the built-in corpus. It takes minutes.

    The commands are train, evaluate, export with an engine, report, and score.
    """
    from ..train.data.builtin import builtin_corpus

    run = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-demo"
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
    _heading(f"rrtn score {' '.join(files)} --model {run / 'export'}")
    score(files, model=run / "export", as_json=as_json)
    say(f"One page with all of this: {run / 'report.html'}")


def _heading(command: str) -> None:
    say(f"\n$ {command}")
