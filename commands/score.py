"""rrtn score: to a table on this machine or on Ray, or to the screen."""

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.backends.registry import AUTO, backend_names, for_each_backend
from ..runtime.errors import ConfigError
from ..runtime.tables.formats import suffixes
from .options import EXIT_SOME_ERRORS, Audio, Json, Listed, newest_bundle, spool_from_options
from .printing import plain, print_json, say
from .summary import choice_of_scorer, print_rows, row_json, say_summary, summary_of_totals

if TYPE_CHECKING:
    from ..runtime.audio.input_spool import InputSpool, Shard
    from ..runtime.bundle import Bundle
    from ..runtime.scoring.error_budget import ErrorBudget
    from ..runtime.scoring.ray_engine import RayEngine
    from ..runtime.scoring.scorer import Scorer
    from ..runtime.scoring.table_job import TableJob
    from ..runtime.tables.rows import Row


def score(
    audio: Audio = None,
    model: Annotated[
        Optional[Path],
        typer.Option(
            "--model",
            "-m",
            help="A bundle or an .onnx of ours; default: the newest run's export/.",
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
        Optional[float],
        typer.Option(help="Score all of a recording, in windows of so many seconds.", show_default=False),
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
    max_seconds: Annotated[float, typer.Option(help="Longer files are errors.")] = 3600.0,
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
    """Score audio files. A bad file is a row with an error code, never a stop; the same command goes
    on where it was.

    Example: rrtn score recordings/ --out scores.csv
    """
    from ..runtime.bundle import load_bundle
    from ..runtime.scoring.error_budget import ErrorBudget
    from ..runtime.scoring.scorer import Scorer
    from ..runtime.tables.writer import check_table

    _check_engine(engine, ray_address, out)
    bad_files = ErrorBudget(max_bad_fraction, max_bad_run, fail_fast)
    if out:
        check_table(out, embeddings=embeddings)
    bundle = load_bundle(model or newest_bundle())
    make_scorer = partial(
        Scorer,
        variant=variant,
        batch_size=batch_size,
        window=window,
        hop=hop,
        max_seconds=max_seconds,
        timeout=timeout,
        allow_truncated=allow_truncated,
        embeddings=embeddings,
    )
    scorer = make_scorer(bundle, backend, workers=workers) if engine == "local" else None
    with spool_from_options(audio, listed) as spool:
        rows: list[Row] = []
        if scorer is None:
            from ..runtime.scoring.ray_engine import ray_engine

            with ray_engine(
                bundle, make_scorer, address=ray_address, backend=backend, variant=variant, workers=workers
            ) as actors:
                summary = _score_with_ray(
                    actors, spool, Path(out or ""), submission, bad_files, bundle, overwrite=overwrite
                )
        elif out:
            _say_choice(scorer, spool)
            summary = _score_to_table(scorer, spool, out, submission, bad_files, overwrite=overwrite)
        else:
            _say_choice(scorer, spool)
            summary, rows = _score_to_screen(scorer, spool, submission, bad_files, top=top, as_json=as_json)
    if as_json:
        print_json(summary if out else {**summary, "rows": [row_json(row) for row in rows]})
    say_summary(summary)
    if summary["errors"]:
        raise typer.Exit(EXIT_SOME_ERRORS)


def _check_engine(engine: str, ray_address: str | None, out: Path | None) -> None:
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine | {engine!r} | expected local or ray")
    if engine == "ray" and out is None:
        raise ConfigError(
            "--engine ray | no --out | a table, beside which what is done is kept | add --out scores.csv"
        )
    if engine == "local" and ray_address:
        raise ConfigError(
            f"--ray-address {ray_address} | --engine local | expected with ray only | add --engine ray"
        )


def _say_choice(scorer: "Scorer", spool: "InputSpool") -> None:
    twice = f" ({spool.twice} given twice)" if spool.twice else ""
    chosen = f"{plain(scorer.backend.variant.file)} on {scorer.backend.device}"
    passed_over = "".join(f"; not {what}: {why}" for what, why in scorer.passed_over.items())
    say(f"{spool.files} files{twice}, {plain(scorer.bundle.path)}: {chosen}{plain(passed_over)}")


def _score_to_table(
    scorer: "Scorer",
    spool: "InputSpool",
    out: Path,
    submission: Path | None,
    bad_files: "ErrorBudget",
    *,
    overwrite: bool,
) -> dict[str, Any]:
    from ..runtime.progress import Progress
    from ..runtime.scoring.folder import busy_shares, score_shards, settings_of_scorer, table_from_job
    from ..runtime.scoring.table_job import opened_job

    begin = time.monotonic()
    with opened_job(out, settings_of_scorer(scorer), scorer.labels, overwrite=overwrite) as job:
        shards, todo = _to_do(job, spool)
        with Progress("score", todo, "files") as bar:
            score_shards(scorer, job, spool, shards, bad_files, bar)
        seconds = time.monotonic() - begin
        totals = table_from_job(
            job, spool, out, scorer.labels, embedding_size=scorer.embedding_size, submission=submission
        )
    wall = time.monotonic() - begin
    busy = busy_shares(scorer, wall, wall - seconds) if todo else {}
    return summary_of_totals(totals, wall, todo, out, busy, choice_of_scorer(scorer))


def _to_do(job: "TableJob", spool: "InputSpool") -> "tuple[list[Shard], int]":
    """The shards that are missing, and the files in them."""
    from ..runtime.scoring.folder import missing_shards

    shards = missing_shards(job, spool)
    todo = spool.files_of(shards)
    if todo < spool.files:
        say(f"{spool.files - todo} files were scored before and are kept (--overwrite scores them again)")
    return shards, todo


def _score_with_ray(
    engine: "RayEngine",
    spool: "InputSpool",
    out: Path,
    submission: Path | None,
    bad_files: "ErrorBudget",
    bundle: "Bundle",
    *,
    overwrite: bool,
) -> dict[str, Any]:
    from ..runtime.progress import Progress
    from ..runtime.scoring.folder import table_from_job
    from ..runtime.scoring.ray_engine import score_shards_with_ray
    from ..runtime.scoring.table_job import opened_job

    begin, loaded = time.monotonic(), engine.loaded
    say(
        f"{spool.files} files, {plain(bundle.path)}: {plain(loaded.file)} on {loaded.device}, {engine.actors} Ray actors"
    )
    with opened_job(out, loaded.settings, bundle.labels, overwrite=overwrite) as job:
        shards, todo = _to_do(job, spool)
        with Progress("score", todo, "files") as bar:
            score_shards_with_ray(engine, job, spool, shards, bad_files, bar)
        totals = table_from_job(
            job, spool, out, bundle.labels, embedding_size=loaded.embedding_size, submission=submission
        )
    return summary_of_totals(
        totals, time.monotonic() - begin, todo, out, {}, (loaded.device, loaded.variant, loaded.batch_size)
    )


def _score_to_screen(
    scorer: "Scorer",
    spool: "InputSpool",
    submission: Path | None,
    bad_files: "ErrorBudget",
    *,
    top: int,
    as_json: bool,
) -> tuple[dict[str, Any], list["Row"]]:
    """CSV as it comes where another program reads, a readable table on a terminal."""
    from ..runtime.progress import Progress
    from ..runtime.scoring.folder import Totals, busy_shares
    from ..runtime.tables.csv_table import csv_lines
    from ..runtime.tables.submission import write_submission

    totals, begin = Totals(), time.monotonic()
    with Progress("score", spool.files, "files") as bar:

        def counted() -> Iterator["Row"]:
            for rows in scorer.rows_of_files(
                source for shard in spool.shards for source in spool.sources(shard)
            ):
                bad_files.count(rows)
                totals.count(rows)
                bar.advance()
                yield from rows

        rows = write_submission(submission, counted(), scorer.labels) if submission else counted()
        if as_json or sys.stdout.isatty():
            kept = list(rows)
        else:
            kept = []
            for line in csv_lines(rows, scorer.labels):
                print(line, end="")
    bad_files.finish()
    if not as_json and kept:
        print_rows(kept, scorer.labels, top)
    wall = time.monotonic() - begin
    return summary_of_totals(
        totals, wall, totals.files, None, busy_shares(scorer, wall, 0.0), choice_of_scorer(scorer)
    ), kept
