"""A folder of audio becomes a table.

The shards that the table lacks are scored, by this machine or by Ray. Then the table is put together from
the parts of all shards.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from ..audio.file_names import FilePath
from ..audio.input_spool import InputSpool, Shard
from ..audio.sources import name_from_source
from ..progress import Bar, Progress
from ..tables.rows import Row
from ..tables.submission import check_file_ids, check_submission, write_submission
from ..tables.writer import read_table, write_table
from ..text import counted
from .engine import CountFile, LoadedModel, ScoringEngine
from .error_budget import ErrorBudget
from .local_engine import LocalEngine
from .table_job import TableJob, opened_job

OpenBar = Callable[[int], AbstractContextManager[Bar]]  # takes the number of files


@dataclass
class Totals:
    """What is counted over the files of a table."""

    files: int = 0
    scored: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    audio_seconds: float = 0.0

    def count(self, rows: Sequence[Row]) -> None:
        """Counts one file by its rows."""
        self.files += 1
        self.audio_seconds += rows[0].seconds
        bad = [row.error for row in rows if row.error]
        self.scored += not bad
        if bad:
            self.errors[bad[0]] += 1
        if flags := rows[-1].flags:  # with windows the last row is the whole file's
            self.flags.update(flags)


@dataclass(frozen=True, kw_only=True)
class ScoringSummary:
    """What came of scoring a list of files."""

    totals: Totals
    model: LoadedModel
    seconds: float  # of this call, from listing the missing shards to the finished table
    scored_now: int  # files; the others were scored by an earlier call
    out: Path | None = None
    kept_rows: int = 0  # of other files, by --append
    kept_rows_checked: bool = True  # False where nobody knows the model and settings of each
    busy: dict[str, float] = field(default_factory=dict)  # the highest share is the bottleneck
    left_out: Counter[str] = field(default_factory=Counter)  # what was found beside the files, by suffix

    def to_dict(self) -> dict[str, Any]:
        """The document of `rrtn score --json`."""
        return {
            "files": self.totals.files,
            "scored": self.totals.scored,
            "errors": dict(sorted(self.totals.errors.items())),
            "flags": dict(sorted(self.totals.flags.items())),
            "seconds": round(self.seconds, 3),
            "audio_seconds": round(self.totals.audio_seconds, 3),
            "backend": self.model.device,
            "variant": self.model.variant,
            **({"segment": found} if (found := self.model.settings.get("segment")) else {}),
            "out": str(self.out) if self.out else None,
            "scored_now": self.scored_now,
            "batch_size": self.model.batch_size,
            "busy": {part: round(share, 3) for part, share in self.busy.items()},
            "kept_rows": self.kept_rows,
            "kept_rows_checked": self.kept_rows_checked,
            "left_out": dict(sorted(self.left_out.items())),
        }


class NoBar:
    """Shows nothing."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Does nothing."""

    def watch(self, in_work: Callable[[], str]) -> None:
        """Does nothing."""


def no_bar(files: int) -> AbstractContextManager[Bar]:
    """The OpenBar of a call that nobody watches."""
    return contextlib.nullcontext(NoBar())


def score_to_table(
    engine: ScoringEngine,
    spool: InputSpool,
    out: Path,
    *,
    error_budget: ErrorBudget | None = None,
    submission: Path | None = None,
    overwrite: bool = False,
    append: bool = False,
    open_bar: OpenBar = no_bar,
    say: Callable[[str], object] = lambda line: None,
) -> ScoringSummary:
    """Scores every file of `spool` into the table `out`: .csv, .jsonl or .parquet.

    A call that was stopped is continued by the same call. `overwrite` scores everything again. `append`
    keeps the rows of the table that are of other files. `submission` is a second table, in the form of the
    challenge. `say` takes lines for the person.

    Raises ConfigError if the table was begun with other settings or inputs, is being written by another
    process, or is a file of another kind,
    StoppedError if the error budget is spent or the storage fails, ModelError if the model fails.
    """
    budget = error_budget or ErrorBudget()
    begin = time.monotonic()
    model = engine.loaded
    if submission:
        check_file_ids(submission, _names(spool, ()))
    opened = opened_job(
        out,
        model.settings,
        model.labels,
        inputs=spool.named,
        relative_to=spool.relative_to,
        overwrite=overwrite,
        append=append,
    )
    with opened as job:
        kept_rows = KeptRows(out, model, spool.names()) if append and out.exists() else ()
        if kept_rows and not job.settings_of_kept:
            say(_of_unknown_settings(out, kept_rows))
        if submission:
            _check_submission(submission, job, spool, model, kept_rows, overwrite=overwrite)
            job.note_submission(submission)
        shards = list(spool.shards) if job.is_new else _missing(job, spool)
        missing = spool.files_of(shards)
        if kept := spool.files - missing:
            say(f"{counted(kept, 'file')} scored before and kept (--overwrite scores everything again)")
            _count_kept(job, spool, shards, budget)
        with open_bar(missing) as bar:
            bar.watch(engine.in_work)
            _score_shards(engine, job, spool, shards, budget, bar)
        if kept and budget.has_limit:
            budget.check(job.rows(spool))
        scored = time.monotonic()
        totals = _table_from_job(job, spool, out, engine.loaded, submission, kept_rows)
    end = time.monotonic()
    return ScoringSummary(
        totals=totals,
        model=engine.loaded,
        seconds=end - begin,
        scored_now=missing,
        out=out,
        kept_rows=len(kept_rows),
        kept_rows_checked=job.settings_of_kept or not kept_rows,
        busy=_busy_shares(engine, end - begin, writing=end - scored) if missing else {},
        left_out=spool.left_out,
    )


def _of_unknown_settings(out: Path, kept_rows: "KeptRows | Sequence[Row]") -> str:
    return (
        f"note: {counted(len(kept_rows), 'kept row')} may be of another model or other settings: "
        f"the folder .{out.name}.rrtn was not there when the table was first appended to"
    )


def _check_submission(
    submission: Path,
    job: TableJob,
    spool: InputSpool,
    model: LoadedModel,
    kept_rows: "KeptRows | Sequence[Row]",
    *,
    overwrite: bool,
) -> None:
    """Raises ConfigError where the challenge's form of the table cannot be made, or must not be put there."""
    if kept_rows:
        check_file_ids(submission, _names(spool, kept_rows))
    if not overwrite:
        names = None if job.has_written(submission) else _names(spool, kept_rows)
        check_submission(submission, model.submitted, names)


def score_to_rows(
    engine: LocalEngine,
    spool: InputSpool,
    take: Callable[[Iterator[Row]], None],
    *,
    error_budget: ErrorBudget | None = None,
    submission: Path | None = None,
    overwrite: bool = False,
    open_bar: OpenBar = no_bar,
) -> ScoringSummary:
    """Scores every file of `spool` and gives the rows to `take`, as they come. No table is written.

    Raises what `score_to_table` raises.
    """
    budget, totals = error_budget or ErrorBudget(), Totals()
    if submission:
        check_file_ids(submission, _names(spool, ()))
        if not overwrite:
            check_submission(submission, engine.loaded.submitted, _names(spool, ()))
    begin = time.monotonic()
    with open_bar(spool.files) as bar:
        bar.watch(engine.in_work)
        files = _watched(engine.files(spool, spool.shards), _counter(budget, bar))
        rows: Iterator[Row] = _counted(files, totals)
        take(write_submission(submission, rows, engine.loaded.submitted) if submission else rows)
    budget.finish()
    seconds = time.monotonic() - begin
    busy = _busy_shares(engine, seconds, writing=0.0)
    return ScoringSummary(
        totals=totals,
        model=engine.loaded,
        seconds=seconds,
        scored_now=totals.files,
        busy=busy,
        left_out=spool.left_out,
    )


class KeptRows:
    """The rows of a table that are of other files than those that are scored now. They stand first."""

    def __init__(self, table: Path, model: LoadedModel, is_scored: Callable[[FilePath], bool]) -> None:
        """Reads the whole table, so that a wrong one is refused before the work. Raises ConfigError."""
        self._table, self._model, self._is_scored = table, model, is_scored
        self._count = sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        rows = read_table(self._table, self._model.labels, self._model.embedding_size)
        return (row for row in rows if not self._is_scored(row.file))


def _names(spool: InputSpool, kept_rows: Iterable[Row]) -> Iterator[FilePath]:
    for shard in spool.shards:
        yield from map(name_from_source, spool.sources(shard))
    yield from (row.file for row in kept_rows)


def _missing(job: TableJob, spool: InputSpool) -> list[Shard]:
    """The shards to score. A file is read only where its ctime or inode is another one."""
    missing = []
    with Progress("compare", spool.files, "files") as bar:
        for shard in spool.shards:
            if not job.has(shard, spool.inputs(shard)):
                missing.append(shard)
            bar.advance(shard.files)
    return missing


def _count_kept(job: TableJob, spool: InputSpool, missing: Sequence[Shard], budget: ErrorBudget) -> None:
    if budget.has_limit:
        again = set(missing)
        for rows in job.rows(spool, [shard for shard in spool.shards if shard not in again]):
            budget.count_kept(rows)


def _score_shards(
    engine: ScoringEngine,
    job: TableJob,
    spool: InputSpool,
    shards: Sequence[Shard],
    error_budget: ErrorBudget,
    bar: Bar,
) -> None:
    """Keeps the part of each shard as soon as the shard is done, while the next one is being scored."""
    with ThreadPoolExecutor(1, thread_name_prefix="parts") as writer:
        pending: Future[None] | None = None
        try:
            for shard, content in engine.parts(spool, shards, _counter(error_budget, bar)):
                if pending:
                    pending.result()
                pending = writer.submit(job.put, shard, content, spool.inputs(shard))
        finally:  # whatever else has failed: a part that was not kept comes first
            if pending:
                pending.result()
    error_budget.finish()


def _counter(error_budget: ErrorBudget, bar: Bar) -> CountFile:
    def count(rows: list[Row]) -> None:
        error_budget.count(rows)
        bar.advance(note=counted(error_budget.bad, "error") if error_budget.bad else "")

    return count


def _watched(files: Iterable[list[Row]], count: CountFile) -> Iterator[list[Row]]:
    for rows in files:
        count(rows)
        yield rows


def _table_from_job(
    job: TableJob,
    spool: InputSpool,
    out: Path,
    model: LoadedModel,
    submission: Path | None,
    kept_rows: Iterable[Row],
) -> Totals:
    """Writes the table, and the submission; -> what of them is of the files of `spool`."""
    totals = Totals()
    rows: Iterator[Row] = chain(kept_rows, _counted(job.rows(spool), totals))
    size, note = model.embedding_size, job.note_table
    rows = write_table(out, rows, model.labels, embedding_size=size, before_it_appears=note)
    if submission:  # behind the table, which stays where the submission is refused
        rows = write_submission(submission, rows, model.submitted)
    for _ in rows:
        pass
    job.note_written(spool)
    job.tidy(spool)
    return totals


def _counted(files: Iterable[list[Row]], totals: Totals) -> Iterator[Row]:
    for rows in files:
        totals.count(rows)
        yield from rows


def _busy_shares(engine: ScoringEngine, seconds: float, *, writing: float) -> dict[str, float]:
    """The engine's shares, if it knows them, and the share of the time that writing the table took."""
    shares = engine.busy(seconds)
    return {**shares, "writing": writing / seconds} if shares else {}
