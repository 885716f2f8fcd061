"""A folder of audio becomes a table: the shards that are not there yet are scored, then all are put
together.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..audio.input_spool import InputSpool, Shard
from ..progress import Bar
from ..tables.rows import Row
from ..tables.submission import write_submission
from ..tables.writer import write_table
from .error_budget import ErrorBudget
from .part_file import part_from_rows
from .scorer import Scorer
from .table_job import SCORING_RULES, TableJob


@dataclass
class Totals:
    """What `rrtn score` says at the end."""

    files: int = 0
    scored: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    audio_seconds: float = 0.0

    def count(self, rows: Sequence[Row]) -> None:
        """One file's rows."""
        self.files += 1
        self.audio_seconds += rows[0].seconds
        bad = next((row for row in rows if row.scores is None), None)
        self.scored += bad is None
        if bad:  # beside scores `error` is a flag
            self.errors[bad.error] += 1


def settings_of_scorer(scorer: Scorer) -> dict[str, Any]:
    """All that a row depends on, beside its file."""
    decoding = scorer.decoding
    return {
        "scoring_rules": SCORING_RULES,
        "model": scorer.backend.variant.sha256,
        "backend": scorer.backend.device,
        "batch_size": scorer.batch_size,
        "labels": list(scorer.labels),
        "frontend": hashlib.sha256(
            json.dumps(scorer.bundle.spec.to_dict(), sort_keys=True).encode()
        ).hexdigest(),
        "window": decoding.window,
        "hop": decoding.hop,
        "max_seconds": decoding.max_seconds,
        "allow_truncated": decoding.allow_truncated,
        "embedding": scorer.embedding_size,
    }


def missing_shards(job: TableJob, spool: InputSpool) -> list[Shard]:
    """Those that are still to be scored."""
    return [shard for shard in spool.shards if not job.has(shard)]


def score_shards(
    scorer: Scorer,
    job: TableJob,
    spool: InputSpool,
    shards: Sequence[Shard],
    bad_files: ErrorBudget,
    bar: Bar,
) -> None:
    """Scores the shards one after the other, without a pause between them; each is kept as soon as
    it is whole.
    """
    sources = (source for shard in shards for source in spool.sources(shard))
    files = scorer.rows_of_files(sources)
    with ThreadPoolExecutor(1, thread_name_prefix="parts") as writer:
        pending: Future[None] | None = None
        for shard in shards:
            rows = list(_counted(islice(files, shard.files), bad_files, bar))
            content = part_from_rows(rows, scorer.labels, embedding_size=scorer.embedding_size)
            if pending:
                pending.result()
            pending = writer.submit(job.put, shard, content)
        if pending:
            pending.result()
    bad_files.finish()


def _counted(files: Iterable[list[Row]], bad_files: ErrorBudget, bar: Bar) -> Iterator[list[Row]]:
    for rows in files:
        bad_files.count(rows)
        bar.advance(note=f"{bad_files.bad} errors" if bad_files.bad else "")
        yield rows


def table_from_job(
    job: TableJob,
    spool: InputSpool,
    target: Path,
    labels: tuple[str, ...],
    *,
    embedding_size: int | None = None,
    submission: Path | None = None,
) -> Totals:
    """Writes the table, and the submission; -> what is in them."""
    totals = Totals()
    rows: Iterator[Row] = (row for of_file in _totalled(job.rows(spool), totals) for row in of_file)
    if submission:
        rows = write_submission(submission, rows, labels)
    for _ in write_table(target, rows, labels, embedding_size=embedding_size):
        pass
    job.tidy(spool)
    return totals


def _totalled(files: Iterable[list[Row]], totals: Totals) -> Iterator[list[Row]]:
    for rows in files:
        totals.count(rows)
        yield rows


def busy_shares(scorer: Scorer, wall: float, writing: float) -> dict[str, float]:
    """Of each part of the work: the share of the time in which it was at work.

    The highest is the bottleneck.
    """
    return {
        "reading and decoding": scorer.timing.decoding / wall / scorer.workers,
        "features": scorer.timing.features / wall / scorer.workers,
        "model": scorer.timing.model / wall / scorer.lanes,
        "writing": writing / wall,
    }
