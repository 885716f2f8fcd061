"""rrtn score: to a table on this machine or on Ray, or to the screen."""

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..runtime.backends.registry import AUTO, backend_names, for_each_backend
from ..runtime.errors import ConfigError, counted
from ..runtime.tables.formats import suffixes
from .options import EXIT_SOME_ERRORS, Audio, Json, Listed, newest_bundle, spool_from_options
from .printing import print_json, say
from .summary import print_rows, row_json, say_summary

if TYPE_CHECKING:
    from ..runtime.audio.input_spool import InputSpool
    from ..runtime.bundle import Bundle
    from ..runtime.progress import Progress
    from ..runtime.scoring.decoder_messages import Window
    from ..runtime.scoring.engine import ScoringEngine
    from ..runtime.scoring.error_budget import ErrorBudget
    from ..runtime.scoring.folder import ScoringSummary
    from ..runtime.scoring.scorer import Scorer
    from ..runtime.tables.rows import Row


def score(
    audio: Audio = None,
    model: Annotated[
        Optional[Path],
        typer.Option(
            "--model",
            "-m",
            help="A bundle, a run or an .onnx of ours; default: the newest run's export/.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help=f"The table: {suffixes()}; default: printed.", show_default=False),
    ] = None,
    listed: Listed = None,
    backend: Annotated[str, typer.Option(help=f"{backend_names()}.")] = AUTO,
    variant: Annotated[
        Optional[str], typer.Option(help="Of the bundle: fp32, int8, fp16, ...", show_default=False)
    ] = None,
    window: Annotated[
        Optional[str],
        typer.Option(
            help="Score all of a recording, in windows of so many seconds; auto: of one clip.",
            show_default=False,
        ),
    ] = None,
    hop: Annotated[
        Optional[float], typer.Option(help="Between windows (s); default: --window.", show_default=False)
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Also the encoder's representation (see export).")
    ] = False,
    submission: Annotated[
        Optional[Path], typer.Option(help="Also a CSV in the challenge's form.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(help="Printed: the highest labels of each row.")] = 3,
    batch_size: Annotated[
        Optional[int],
        typer.Option(
            help=f"Default: {for_each_backend(lambda kind: str(kind.batch_size))}.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        Optional[int], typer.Option(help="Decoding processes; default: one a core.", show_default=False)
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="Longer files are errors; not with --window.")] = 3600.0,
    timeout: Annotated[float, typer.Option(help="Files that take longer to decode are errors (s).")] = 60.0,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Score what is there of cut-off files.")
    ] = False,
    max_bad_fraction: Annotated[
        Optional[float], typer.Option(help="Stop where more of the files are errors.", show_default=False)
    ] = None,
    max_bad_run: Annotated[
        Optional[int], typer.Option(help="Stop after so many errors in a row.", show_default=False)
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Score everything again.")] = False,
    engine: Annotated[
        str, typer.Option(help="local, or ray: its tasks on this machine or a cluster.")
    ] = "local",
    ray_address: Annotated[
        Optional[str],
        typer.Option(
            help="A running cluster's HOST:PORT or auto; default: $RAY_ADDRESS, or only here.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score audio files, into a table or on the screen.

    A file that cannot be scored is a row with an error code. The same command goes on where it was stopped.

    Example: rrtn score recordings/ --out scores.csv
    """
    from ..runtime.bundle import load_bundle
    from ..runtime.scoring.error_budget import ErrorBudget
    from ..runtime.scoring.scorer import Scorer

    _check_options(engine, ray_address, out, embeddings)
    budget = ErrorBudget(max_bad_fraction, max_bad_run, fail_fast)
    bundle = load_bundle(model or newest_bundle())
    make_scorer = partial(
        Scorer,
        variant=variant,
        batch_size=batch_size,
        window=_window(window),
        hop=hop,
        max_seconds=max_seconds,
        timeout=timeout,
        allow_truncated=allow_truncated,
        embeddings=embeddings,
    )
    opened = _opened_engine(engine, bundle, make_scorer, backend, variant, workers, ray_address)
    with opened as scoring, spool_from_options(audio, listed) as spool:
        if out:
            summary = _to_table(scoring, spool, out, budget, submission, overwrite, as_json)
        else:
            summary = _to_screen(scoring, spool, budget, submission, top, as_json)
    _end(summary)


def _window(option: str | None) -> "Window | None":
    if option is None:
        return None
    try:
        return "auto" if option == "auto" else float(option)
    except ValueError:
        raise ConfigError("--window", repr(option), wanted="seconds, or auto") from None


def _check_options(engine: str, ray_address: str | None, out: Path | None, embeddings: bool) -> None:
    from ..runtime.tables.writer import check_table

    if engine not in ("local", "ray"):
        raise ConfigError("--engine", repr(engine), wanted="local or ray")
    if engine == "ray" and out is None:
        raise ConfigError("--engine ray", "writes a table, and --out is missing", fix="add --out scores.csv")
    if engine == "local" and ray_address:
        raise ConfigError(
            f"--ray-address {ray_address}", "is for --engine ray, and this is local", fix="add --engine ray"
        )
    if out:
        check_table(out, embeddings=embeddings)


@contextlib.contextmanager
def _opened_engine(
    name: str,
    bundle: "Bundle",
    make_scorer: "partial[Scorer]",
    backend: str,
    variant: str | None,
    workers: int | None,
    ray_address: str | None,
) -> Iterator["ScoringEngine"]:
    from ..runtime.scoring.local_engine import LocalEngine

    if name == "local":
        yield LocalEngine(make_scorer(bundle, backend, workers=workers))
        return
    from ..runtime.scoring.ray_engine import ray_engine

    with ray_engine(
        bundle, make_scorer, address=ray_address, backend=backend, variant=variant, workers=workers
    ) as engine:
        yield engine


def _to_table(
    engine: "ScoringEngine",
    spool: "InputSpool",
    out: Path,
    budget: "ErrorBudget",
    submission: Path | None,
    overwrite: bool,
    as_json: bool,
) -> "ScoringSummary":
    from ..runtime.scoring.folder import score_to_table

    _say_choice(engine, spool)
    summary = score_to_table(
        engine,
        spool,
        out,
        error_budget=budget,
        submission=submission,
        overwrite=overwrite,
        open_bar=_bar,
        say=say,
    )
    if as_json:
        print_json(summary.to_dict())
    return summary


def _to_screen(
    engine: "ScoringEngine",
    spool: "InputSpool",
    budget: "ErrorBudget",
    submission: Path | None,
    top: int,
    as_json: bool,
) -> "ScoringSummary":
    """CSV as it comes where another program reads, a readable table on a terminal."""
    from ..runtime.scoring.folder import score_to_rows
    from ..runtime.scoring.local_engine import LocalEngine

    assert isinstance(engine, LocalEngine)  # _check_options refuses Ray without a table
    labels = engine.loaded.labels
    kept: list[Row] = []
    take = kept.extend if as_json or sys.stdout.isatty() else partial(_print_csv, labels=labels)
    _say_choice(engine, spool)
    summary = score_to_rows(engine, spool, take, error_budget=budget, submission=submission, open_bar=_bar)
    if as_json:
        print_json({**summary.to_dict(), "rows": [row_json(row) for row in kept]})
    elif kept:
        print_rows(kept, labels, top)
    return summary


def _print_csv(rows: Iterator["Row"], labels: tuple[str, ...]) -> None:
    from ..runtime.tables.csv_table import csv_lines

    for line in csv_lines(rows, labels):
        print(line, end="")


def _say_choice(engine: "ScoringEngine", spool: "InputSpool") -> None:
    twice = f" ({spool.twice} given twice)" if spool.twice else ""
    say(f"{counted(spool.files, 'file')}{twice}, {engine.description}")


def _bar(files: int) -> "Progress":
    from ..runtime.progress import Progress

    return Progress("score", files, "files")


def _end(summary: "ScoringSummary") -> None:
    say_summary(summary)
    if summary.totals.errors:
        raise typer.Exit(EXIT_SOME_ERRORS)
